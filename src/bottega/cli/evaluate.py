"""``bottega evaluate``: measure a model."""


import typer

app = typer.Typer(help="Measure a model.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Measure a model."""


__all__ = ["app", "group"]
