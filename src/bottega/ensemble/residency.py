"""Which expert denoisers are in memory: all of them, or only the one at work."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal, cast

import torch
from torch import nn

from bottega.diffusion.denoiser import DenoiserLike, parameter_dtype
from bottega.ensemble.stored import StoredDenoiser
from bottega.errors import ConfigError

Residency = Literal["all", "active"]
"""Whether all expert denoisers are in memory, or only the one at work with the next one on its way."""

Loader = Callable[[], DenoiserLike]
"""Makes a denoiser with its weights; called once, or whenever its turn comes again."""

Change = Callable[[nn.Module], None]
"""Changes the weights of a network in place."""


class AllResident(nn.Module):
    """Every expert denoiser in memory from the start."""

    def __init__(self, sources: Sequence[DenoiserLike | Loader]) -> None:
        """Call the loaders among ``sources``."""
        super().__init__()
        denoisers = [
            source if isinstance(source, DenoiserLike) else _load(source) for source in sources
        ]
        self.denoisers = nn.ModuleList(cast(Sequence[nn.Module], denoisers))

    def get(self, index: int, upcoming: int) -> DenoiserLike:
        """The denoiser of expert ``index``."""
        return cast(DenoiserLike, self.denoisers[index])

    def change(self, index: int, change: Change) -> None:
        """Change the network of expert ``index``."""
        change(_network(self.denoisers[index]))


class ActiveResident(nn.Module):
    """Only the expert denoiser at work in memory, while a background thread fetches the next.

    A `StoredDenoiser` is filled into the network that is resident, so that there is one set of weights at any moment;
    on a GPU the next one waits in pinned memory of the host, and no second copy ever lies on the device. Any other
    loader makes a whole denoiser, which waits beside the one at work.
    """

    def __init__(self, sources: Sequence[DenoiserLike | Loader], first: int) -> None:
        """Load the expert denoiser that works ``first``.

        Raises:
            ConfigError: When an expert is given as a denoiser, which is in memory already.
        """
        super().__init__()
        for source in sources:
            if isinstance(source, DenoiserLike):
                raise ConfigError(
                    "residency active needs loaders, such as StoredDenoiser; a denoiser is in memory already"
                )
        self._loaders = [cast(Loader, source) for source in sources]
        self._index: int | None = first
        self._made_by: Loader | None = self._loaders[first]
        self._coming: tuple[int, Future[Any]] | None = None
        self.resident = cast(nn.Module, _load(self._loaders[first]))

    def get(self, index: int, upcoming: int) -> DenoiserLike:
        """The denoiser of expert ``index``; fetching ``upcoming`` has begun when this returns.

        Raises:
            CheckpointError: When weights cannot be read, here or in the background before.
        """
        if index != self._index:
            self._switch(index)
        if upcoming != index and (self._coming is None or self._coming[0] != upcoming):
            self._take_fetched()  # two fetches at once would cost the memory of two
            loader, device = self._loaders[upcoming], _device_of(self.resident)
            self._coming = upcoming, _in_background(lambda: _fetch(loader, device))
        return cast(DenoiserLike, self.resident)

    def change(self, index: int, change: Change) -> None:
        """Change the network of expert ``index`` whenever it has been loaded, and now if it is at work.

        Raises:
            ConfigError: For a loader that cannot be told so.
        """
        loader = self._loaders[index]
        if not isinstance(loader, StoredDenoiser):
            raise ConfigError("only a StoredDenoiser can be changed under residency active")
        loader.then(change)
        if index == self._index:
            change(_network(self.resident))

    def _switch(self, index: int) -> None:
        """Put expert ``index`` in the place of the one that worked so far."""
        is_coming = self._coming is not None and self._coming[0] == index
        fetched = self._take_fetched()
        if not is_coming:
            fetched = None
        loader = self._loaders[index]
        self._index = None  # until all of its weights are here, what is resident is nobody's
        if isinstance(loader, StoredDenoiser) and loader.fits(self._made_by):
            loader.fill(cast(DenoiserLike, self.resident), fetched)
        else:
            self._replace(loader, fetched)
        self._index = index

    def _replace(self, loader: Loader, fetched: Any) -> None:
        """Release the resident denoiser, and move its successor to where it was."""
        device = _device_of(self.resident)
        dtype = parameter_dtype(self.resident, torch.float32)
        if isinstance(loader, StoredDenoiser):  # what was fetched is only its bytes
            self._made_by, fetched = None, None
            self.resident.to(device="meta")  # which gives its memory back
        try:
            successor = cast(nn.Module, _load(loader) if fetched is None else fetched)
        except BaseException:
            self.resident.to_empty(device=device)  # so that where to compute is still known
            raise
        self.resident = successor.to(device=device, dtype=dtype)
        self._made_by = loader

    def _take_fetched(self) -> Any:
        """What the background thread has brought, once it is through; its errors are raised here."""
        coming, self._coming = self._coming, None
        return None if coming is None else coming[1].result()


def _load(loader: Loader) -> DenoiserLike:
    with torch.inference_mode(
        False
    ):  # weights made in inference mode could not be overwritten outside
        denoiser = loader()
    if not isinstance(denoiser, nn.Module):
        raise ConfigError(f"a loader gives a denoiser, got a {type(denoiser).__name__}")
    return denoiser


def _fetch(loader: Loader, device: torch.device) -> Any:
    return loader.fetch(device) if isinstance(loader, StoredDenoiser) else _load(loader)


def _network(denoiser: nn.Module) -> nn.Module:
    return cast(nn.Module, denoiser.network)


def _device_of(denoiser: nn.Module) -> torch.device:
    return next((tensor.device for tensor in denoiser.parameters()), torch.device("cpu"))


def _in_background(work: Callable[[], Any]) -> "Future[Any]":
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="fetch-expert-denoiser", daemon=True).start()
    return future


__all__ = ["ActiveResident", "AllResident", "Change", "Loader", "Residency"]
