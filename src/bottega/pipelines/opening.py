"""From a diffusers folder, or a model folder made of one, to stages and encoders whose weights are read when needed."""

from dataclasses import dataclass
from pathlib import Path

import torch

from bottega.checkpoint import load_manifest
from bottega.checkpoint.ensemble import is_ensemble
from bottega.checkpoint.foreign import load_foreign_unet
from bottega.checkpoint.foreign.unet_settings import plan_of
from bottega.checkpoint.foreign_files import read_weights, weight_files
from bottega.conditioning import Encoders
from bottega.conditioning.foreign_text import ForeignTextEncoder, TextPart, text_part
from bottega.diffusion import DenoiserLike, TimestepDenoiser, TimestepPlan
from bottega.errors import CheckpointError
from bottega.pipelines.cascade import CascadeManifest, StageEntry
from bottega.pipelines.experts import ensemble_config, load_mixture
from bottega.pipelines.foreign import Pipeline
from bottega.pipelines.latent import Autoencoder, open_autoencoder, read_autoencoder
from bottega.pipelines.parts import PipelineParts, TextEntry
from bottega.pipelines.residency import LazyDenoiser, Part, Residency
from bottega.pipelines.shelf import LazyShelf, ShelfTally, has_shelf, load_shelved
from bottega.pipelines.stage import Stage
from bottega.pipelines.stored import denoiser_config, load_timestep_denoiser


@dataclass(frozen=True, kw_only=True, eq=False)
class Opener:
    """Opens the parts of one model folder.

    ``dtype`` is what text encoders compute in. Under the policy ``active`` large pictures are decoded in tiles, too.
    """

    folder: Path
    residency: Residency
    dtype: torch.dtype = torch.float32

    def pipeline(self, pipeline: Pipeline, manifest: CascadeManifest) -> tuple[Stage, Encoders]:
        """The stage and the encoders of a diffusers folder, as it lies there."""
        (entry,) = manifest.stages
        plan = pipeline.scheduling.plan

        def read() -> TimestepDenoiser:
            network, _ = load_foreign_unet(self.folder / entry.folder)
            return plan.denoiser(network.requires_grad_(False).eval())

        denoiser = LazyDenoiser(self.residency.part(read))
        parts = _parts(manifest)
        unit = plan_of(pipeline.unet, where=str(self.folder / entry.folder)).downsampling
        return self._stage(entry, plan, denoiser, self.space(parts), unit), self.encoders(parts)

    def cascade(self, manifest: CascadeManifest) -> tuple[tuple[Stage, ...], Encoders]:
        """The stages and the encoders of a model folder that was imported."""
        parts = _parts(manifest)
        space = self.space(parts)
        stages = tuple(self._imported(entry, space) for entry in manifest.stages)
        return stages, self.encoders(parts)

    def _imported(self, entry: StageEntry, space: Autoencoder | None) -> Stage:
        place = self.folder / entry.folder
        plan = plan_in(place)
        denoiser = self._shelved(place)
        if denoiser is None:

            def read() -> DenoiserLike:
                if is_ensemble(place):
                    return load_mixture(place, residency=self.residency.policy)
                return load_timestep_denoiser(place)[0]

            denoiser = LazyDenoiser(self.residency.part(read))
        return self._stage(entry, plan, denoiser, space, _unit(place))

    def _shelved(self, place: Path) -> LazyShelf | None:
        """A stage whose space experts wait on disk, under the policy ``active``; None for any other."""
        if self.residency.policy != "active" or is_ensemble(place):
            return None
        if not has_shelf(denoiser_config(place, load_manifest(place))):
            return None
        tally = ShelfTally()
        part: Part[DenoiserLike] = self.residency.part(lambda: load_shelved(place, tally)[0])
        return LazyShelf(part, tally)

    def _stage(
        self,
        entry: StageEntry,
        plan: TimestepPlan,
        denoiser: LazyDenoiser,
        space: Autoencoder | None,
        unit: int,
    ) -> Stage:
        return Stage(
            name=entry.name,
            denoiser=denoiser,
            size=entry.size,
            low_res_from=entry.low_res_from,
            space=space,
            timestep_plan=plan,
            noising=entry.noising,
            numbers=entry.numbers,
            numbers_apart=entry.numbers_apart,
            multiple=unit * (1 if space is None else space.factor),
        )

    def space(self, parts: PipelineParts) -> Autoencoder | None:
        """The latents of a model that paints in them."""
        if parts.autoencoder is None:
            return None
        folder = self.folder / parts.autoencoder
        module = self.residency.part(lambda: open_autoencoder(folder))
        return read_autoencoder(folder, module=module, tiled=self.residency.policy == "active")

    def encoders(self, parts: PipelineParts) -> Encoders:
        """The text encoders, not opened yet, but known to be whole."""
        texts = [self._text(entry) for entry in parts.texts]
        encoder = ForeignTextEncoder(
            parts.stream,
            texts,
            max_tokens=parts.max_tokens,
            layer=parts.layer,
            silent=parts.silent,
        )
        return Encoders([encoder])

    def check(self, parts: PipelineParts) -> None:
        """Refuse parts whose settings and weights contradict each other, before they are needed; none stays open.

        Raises:
            CheckpointError: Naming the part, and the tensor that is missing or of another shape.
        """
        self.encoders(parts)  # reads the tokenizers
        for entry in parts.texts:
            _check_text(self.folder / entry.folder, entry.model)
        if parts.autoencoder is not None:
            open_autoencoder(self.folder / parts.autoencoder)

    def _text(self, entry: TextEntry) -> TextPart:
        folder = self.folder / entry.folder
        weight_files(folder)
        part = text_part(folder, self.folder / entry.tokenizer, entry.model, dtype=self.dtype)
        return TextPart(
            folder=part.folder,
            tokenizer=part.tokenizer,
            kind=part.kind,
            model=self.residency.part(part.model),
            dtype=self.dtype,
        )


def _check_text(folder: Path, kind: str) -> None:
    """Compare what a text model's settings describe with the tensors in its files, of which only the names are read.

    Names in files may have prefixes that transformers takes away.
    """
    import transformers

    model_class = getattr(transformers, kind)
    try:
        config = model_class.config_class.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = model_class(config)
    except Exception as error:  # of many kinds, for settings that make no model
        raise CheckpointError(f"{folder / 'config.json'} makes no {kind}: {error}") from None
    found = {name: tuple(t.shape) for name, t in read_weights(folder).items()}
    names: dict[int, list[str]] = {}  # of one tensor there may be several
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    shapes = {id(parameter): tuple(parameter.shape) for parameter in model.parameters()}
    for key, shape in shapes.items():
        own = [f for f in found if any(f == n or f.endswith(f".{n}") for n in names[key])]
        if not any(found[name] == shape for name in own):
            how = f"is {list(found[own[0]])} instead of {list(shape)}" if own else "is missing"
            raise CheckpointError(f"{folder} is no complete {kind}: {names[key][0]} {how}")


def plan_in(place: Path) -> TimestepPlan:
    """The timesteps that the denoiser in a folder learned, or all expert denoisers of an ensemble there.

    Raises:
        CheckpointError: When it is damaged, or was not trained with timesteps.
    """
    if is_ensemble(place):
        plan = ensemble_config(place).timestep_plan
    else:
        plan = denoiser_config(place, load_manifest(place)).timestep_plan
    if plan is None:
        raise CheckpointError(f"{place} says nothing about the timesteps that its network learned")
    return plan


def _unit(place: Path) -> int:
    """What the sides of the pictures, or of the latents, of the network in a folder are multiples of."""
    if is_ensemble(place):
        return ensemble_config(place).network.downsampling
    return denoiser_config(place, load_manifest(place)).network.downsampling


def _parts(manifest: CascadeManifest) -> PipelineParts:
    if manifest.parts is None:
        raise CheckpointError(f"the model {manifest.name} was not imported from another library")
    return manifest.parts


__all__ = ["Opener", "plan_in"]
