"""A small autoencoder of our own: an AutoencoderKL, which others' tools read, built from a plan of ours."""

from dataclasses import dataclass

from bottega.errors import ConfigError
from bottega.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig

_MAX_FACTOR = 64


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """What an autoencoder is built from.

    ``widths`` are the channels at every resolution, from the picture's own to that of the latents; each is half as
    large as the one before, so three of them make latents a quarter of the picture's side. ``blocks`` are residual
    blocks per resolution on the way down, where the way up has one more. ``norm_groups`` divides every width.
    ``middle_attention`` lets the positions of the latents look at each other.
    """

    widths: tuple[int, ...] = (32, 64, 96)
    latent_channels: int = 4
    blocks: int = 1
    norm_groups: int = 2
    middle_attention: bool = False

    def __post_init__(self) -> None:
        if not self.widths:
            raise ConfigError("widths must name at least one resolution")
        for name in ("latent_channels", "blocks", "norm_groups"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for width in self.widths:
            if width < 1 or width % self.norm_groups:
                raise ConfigError(
                    f"every width must be a multiple of norm_groups {self.norm_groups}, got {width}"
                )
        if self.factor > _MAX_FACTOR:
            raise ConfigError(f"widths shrink a picture by {self.factor}; {_MAX_FACTOR} is most")

    @property
    def factor(self) -> int:
        """How many pixels one position of the latents stands for, along each side."""
        return 2 ** (len(self.widths) - 1)

    def settings(self, size: int) -> AutoencoderKLConfig:
        """The same in diffusers' words, for pictures of ``size`` pixels."""
        count = len(self.widths)
        return AutoencoderKLConfig(
            down_block_types=("DownEncoderBlock2D",) * count,
            up_block_types=("UpDecoderBlock2D",) * count,
            block_out_channels=self.widths,
            layers_per_block=self.blocks,
            latent_channels=self.latent_channels,
            norm_num_groups=self.norm_groups,
            sample_size=size,
            mid_block_add_attention=self.middle_attention,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )


def build_autoencoder(config: AutoencoderConfig, size: int) -> AutoencoderKL:
    """An untrained autoencoder for pictures of ``size`` pixels; it takes others too.

    Raises:
        ConfigError: When ``size`` leaves no whole latents.
    """
    if size % config.factor:
        raise ConfigError(
            f"size must be a multiple of {config.factor}, by which the autoencoder shrinks, got {size}"
        )
    return AutoencoderKL(config.settings(size))


__all__ = ["AutoencoderConfig", "build_autoencoder"]
