"""How a block plan refuses a setting."""

from bottega.errors import ConfigError


def require(fine: bool, message: str) -> None:
    """Refuse a setting that makes no sense."""
    if not fine:
        raise ConfigError(message)


__all__ = ["require"]
