"""``bottega routes`` and ``bottega probe paths``: the ways that words and noise take through experts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bottega.cli.beside import Loras
from bottega.cli.measuring import Guidance, Output, Steps, write_facts
from bottega.cli.options import Device, Dtype, Model
from bottega.cli.progress import counting_bar

if TYPE_CHECKING:
    from bottega.evaluation.paths import ToldApart
    from bottega.evaluation.routes import Routes

StageName = Annotated[
    str | None, typer.Option("--stage", help="Which stage; by default the first.")
]


def routes(
    prompt: Annotated[str, typer.Argument(help="What to paint.")],
    model: Model = "piccolo-raphael",
    stage_name: StageName = None,
    seed: Annotated[int, typer.Option("--seed", help="Chooses the picture.")] = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    looks: Annotated[
        str | None,
        typer.Option("--sigmas", metavar="A,B", help="Noise levels at which to look at words."),
    ] = None,
    output: Output = None,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="PNG", help="Draw the routes here.")
    ] = None,
    lora: Loras = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Which expert does each word take in each block, where does it act, and which expert does the noise take?"""
    from bottega.cli.measuring import check_outputs, load_painter, numbers, resolved
    from bottega.config import to_json
    from bottega.evaluation.route_atlas import atlas, routed_stage
    from bottega.evaluation.route_page import routes_page
    from bottega.pipelines import save_picture

    levels = None if looks is None else numbers(looks, "--sigmas")
    check_outputs(output, page, None)
    painter = load_painter(model, device, dtype, lora)
    name = routed_stage(painter, stage_name).name
    settings = resolved(painter, steps, guidance)[name]
    found = atlas(painter, prompt, settings, stage=name, seed=seed, looks=levels)
    for line in _in_words(found.routes):
        typer.echo(line)
    facts = {"stage": name, "seed": seed, "settings": to_json(settings)}
    write_facts(output, painter, "routes", {**facts, **to_json(found.routes)})
    if page is not None:
        save_picture(routes_page(found.routes, found.picture), page)


def paths(
    model: Model = "piccolo-raphael",
    stage_name: StageName = None,
    kind: Annotated[str, typer.Option("--words", help="nouns, adjectives, or both.")] = "both",
    num_nouns: Annotated[int, typer.Option("--nouns", help="How many things.")] = 80,
    per_word: Annotated[int, typer.Option("--sentences", help="Sentences of each word.")] = 100,
    streams: Annotated[
        str | None, typer.Option("--streams", help="Whose tokens to follow; by default all texts'.")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", help="Trees, one a round.")] = 60,
    seed: Annotated[int, typer.Option("--seed", help="Chooses sentences and folds.")] = 0,
    output: Output = None,
    lora: Loras = None,
    device: Device = "auto",
) -> None:
    """Can a word be told from its path? Beside it an untrained gate, and the raw features of its token."""
    from bottega.cli.measuring import check_outputs, load_painter
    from bottega.cli.options import names
    from bottega.config import to_json
    from bottega.errors import InputError, nearest
    from bottega.evaluation.paths import FOLDS
    from bottega.evaluation.route_atlas import network_and_encoders

    kinds = ("nouns", "adjectives")
    if kind not in (*kinds, "both"):
        raise InputError(f"--words {kind!r} is not known{nearest(kind, (*kinds, 'both'))}")
    if per_word < FOLDS:
        raise InputError(
            f"--sentences must be at least {FOLDS}, for as many folds of sentences, got {per_word}"
        )
    check_outputs(output, None, None)
    painter = load_painter(model, device, "float32", lora)
    network, encoders = network_and_encoders(painter, stage_name)
    found: dict[str, ToldApart] = {}
    for each in kinds if kind == "both" else (kind,):
        found[each] = _told_apart(
            network, encoders, each, num_nouns, per_word, names(streams), rounds, seed
        )
        for line in _figures(each, found[each]):
            typer.echo(line)
    facts = {"sentences": per_word, "rounds": rounds, "seed": seed, "streams": streams}
    write_facts(output, painter, "paths", {**facts, **{k: to_json(v) for k, v in found.items()}})


def _told_apart(
    network: Any,
    encoders: Any,
    kind: str,
    num_nouns: int,
    per_word: int,
    streams: tuple[str, ...] | None,
    rounds: int,
    seed: int,
) -> "ToldApart":
    from bottega.data.emoji_world import vocabulary
    from bottega.evaluation.boosting import Boosting
    from bottega.evaluation.paths import tell_apart, word_table
    from bottega.evaluation.route_sentences import ADJECTIVES, make_sentences

    things = vocabulary("core")
    nouns = [thing.name for thing in vocabulary("core", num_nouns)]
    is_noun = kind == "nouns"
    words = nouns if is_noun else list(ADJECTIVES)
    settings = Boosting(rounds=rounds)
    sentences = make_sentences(
        "nouns" if is_noun else "adjectives", words, things, per_word, seed=seed
    )
    with counting_bar(f"paths of {kind}") as progress:
        table = word_table(
            network, encoders, sentences, streams=streams, seed=seed, progress=progress
        )
    with counting_bar("growing trees") as progress:
        return tell_apart(table, words, settings, seed=seed, progress=progress)


def _figures(kind: str, found: "ToldApart") -> list[str]:
    lines = [
        f"{len(found.words)} {kind}, {found.sentences} sentences, {found.distinct_paths} different "
        f"paths; by chance {found.chance:.1%}"
    ]
    for how, shares in (("", found.mixed), (" in new sentences", found.new_frames)):
        lines += [f"  {name:17} {share}{how}" for name, share in shares.items()]
    return lines


def _in_words(found: "Routes") -> list[str]:
    lines = [
        f"{token.stream:>9}  {token.text:14} {' '.join(str(e + 1) for e in token.experts)}"
        for token in found.tokens
        if token.experts
    ]
    for choice in found.times:
        chosen = " ".join(str(expert + 1) for expert in choice.experts)
        lines.append(f"sigma {choice.sigma:8.4g}: noise takes {chosen}")
    return lines


__all__ = ["paths", "routes"]
