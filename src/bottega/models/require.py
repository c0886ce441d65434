"""How a block plan refuses a setting."""

from bottega.errors import ConfigError


def require(fine: bool, message: str) -> None:
    """Refuse a setting that makes no sense."""
    if not fine:
        raise ConfigError(message)


def inner_width(width: int, ratio: float) -> int:
    """How wide a feed-forward of ``ratio`` is inside."""
    require(
        width * ratio >= 1,
        f"a feed-forward of ratio {ratio:g} on a width of {width} would have no width inside; "
        f"ratio must be at least 1/{width}",
    )
    return int(width * ratio)


__all__ = ["inner_width", "require"]
