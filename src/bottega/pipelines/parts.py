"""What a model of another library consists of beside its denoisers, as a model folder's manifest lists it."""

from dataclasses import dataclass

from bottega.conditioning.foreign_text import Layer
from bottega.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TextEntry:
    """A text model and its tokenizer, by their folders; ``model`` is the class that reads it."""

    folder: str
    tokenizer: str
    model: str


@dataclass(frozen=True, kw_only=True)
class PipelineParts:
    """The text encoders, the autoencoder and the origin of a model that was another library's.

    ``pipeline`` is the class of the pipeline that it belonged to. ``stream`` is what the network calls the text;
    ``layer``, ``max_tokens`` and ``silent`` are those of `ForeignTextEncoder`. ``autoencoder`` is a folder, None for a
    model that paints pixels. ``origin`` holds the other library's configurations, from which the model is exported.
    """

    pipeline: str
    stream: str
    texts: tuple[TextEntry, ...]
    layer: Layer = "last"
    max_tokens: int | None = None
    silent: bool = False
    autoencoder: str | None = None
    origin: str = "origin"

    def __post_init__(self) -> None:
        if not self.texts:
            raise ConfigError(f"a {self.pipeline} needs at least one text encoder")

    @property
    def folders(self) -> tuple[str, ...]:
        """Every folder, by its path in the model's."""
        texts = [place for text in self.texts for place in (text.folder, text.tokenizer)]
        autoencoder = [] if self.autoencoder is None else [self.autoencoder]
        return (*texts, *autoencoder, self.origin)


__all__ = ["PipelineParts", "TextEntry"]
