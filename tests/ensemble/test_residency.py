import gc
import json
import sys
import threading
import weakref
from pathlib import Path

import pytest
import torch
from expert_forms import Form, build
from safetensors.torch import save_file

from bottega.condition import Condition
from bottega.diffusion import Denoiser, dpmpp_2m
from bottega.ensemble import StoredDenoiser
from bottega.errors import CheckpointError, ConfigError

GRID = [80.0, 20.0, 3.0, 0.5, 0.05, 0.01, 0.0]
WAIT_S = 120


def x_of(batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def painted(mixture, condition: Condition) -> torch.Tensor:
    with torch.inference_mode():
        denoise = mixture.bind(mixture.prepare(condition))
        *_, last = dpmpp_2m(denoise, x_of(4) * GRID[0], GRID)
    return last.x


@pytest.fixture(scope="module")
def files(denoisers, tmp_path_factory) -> dict[str, Path]:
    """The network of each expert, as a checkpoint keeps it."""
    folder = tmp_path_factory.mktemp("experts")
    for name, denoiser in denoisers.items():
        state = {key: t.contiguous() for key, t in denoiser.network.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in denoisers}


class Builder:
    """Builds denoisers of one form, with other weights each time, and knows which of them are alive."""

    def __init__(self) -> None:
        self.made: list[weakref.ref[Denoiser]] = []

    def __call__(self, form: Form) -> Denoiser:
        denoiser = build(Form(seed=90 + len(self.made)))
        self.made.append(weakref.ref(denoiser))
        return denoiser

    @property
    def num_alive(self) -> int:
        gc.collect()
        return sum(ref() is not None for ref in self.made)


def stored(files: dict[str, Path], builder) -> dict[str, StoredDenoiser]:
    return {name: StoredDenoiser(file, Form(), builder) for name, file in files.items()}


def test_an_active_ensemble_paints_what_a_resident_one_paints(join, denoisers, files, condition):
    active = join(stored(files, Builder()), residency="active")
    loaded = join(stored(files, Builder()), residency="all")
    expected = painted(join(denoisers), condition)
    assert torch.equal(painted(loaded, condition), expected)
    assert torch.equal(painted(active, condition), expected)
    assert torch.equal(painted(active, condition), expected)  # from the top once more


def test_stored_experts_share_one_network_and_its_memory(join, files, condition):
    builder = Builder()
    mixture = join(stored(files, builder), residency="active")
    place = [parameter.data_ptr() for parameter in mixture.parameters()]
    painted(mixture, condition)
    assert len(builder.made) == 1
    assert [parameter.data_ptr() for parameter in mixture.parameters()] == place


def test_the_first_expert_of_a_painting_is_there_from_the_start(join, denoisers, files):
    mixture = join(stored(files, Builder()), residency="active")
    wanted = denoisers["high"].state_dict().values()
    assert all(map(torch.equal, mixture.holder.resident.state_dict().values(), wanted))


def test_the_next_expert_is_fetched_in_the_background_before_it_is_needed(
    join, denoisers, condition
):
    fetched: dict[str, threading.Event] = {name: threading.Event() for name in denoisers}
    threads: dict[str, str] = {}

    def loader(name: str):
        def load() -> Denoiser:
            threads[name] = threading.current_thread().name
            fetched[name].set()
            return denoisers[name]

        return load

    mixture = join({name: loader(name) for name in denoisers}, residency="active")
    assert fetched["high"].is_set()
    assert not fetched["middle"].is_set()
    context = mixture.prepare(condition.null())
    mixture(x_of(4), torch.full((4,), 80.0), context)
    assert fetched["middle"].wait(WAIT_S)
    assert not fetched["low"].is_set()
    mixture(x_of(4), torch.full((4,), 1.0), context)
    assert fetched["low"].wait(WAIT_S)
    assert threads["high"] == threading.current_thread().name
    assert threads["middle"] == threads["low"] == "fetch-expert-denoiser"


def test_an_expert_that_has_worked_is_released(join, condition):
    builder = Builder()
    mixture = join(
        {name: lambda: builder(Form()) for name in ("high", "middle", "low")}, residency="active"
    )
    assert builder.num_alive == 1
    context = mixture.prepare(condition)
    for sigma in (80.0, 1.0, 0.01):
        mixture(x_of(4), torch.full((4,), sigma), context)
        mixture.holder._coming[1].result(WAIT_S)
        assert builder.num_alive == 2  # the one at work, and the next
    assert len(builder.made) == 4


def test_a_walk_that_is_broken_off_leaves_nothing_behind(join, denoisers, files, condition):
    mixture = join(stored(files, Builder()), residency="active")
    context = mixture.prepare(condition)
    for sigma in (1.0, 0.01, 80.0, 0.01, 1.0):  # never the expert that is being fetched
        level = torch.full((4,), sigma)
        name = mixture.expert_for(sigma).name
        told = denoisers[name].prepare(condition)
        expected = denoisers[name](x_of(4), level, told)
        assert torch.equal(mixture(x_of(4), level, context), expected)


def test_a_batch_of_mixed_noise_is_right_though_slow(join, denoisers, files, condition):
    mixture = join(stored(files, Builder()), residency="active")
    sigma = torch.tensor([0.5, 20.0, 0.01, 2.0])
    resident = join(denoisers)
    expected = resident(x_of(4), sigma, resident.prepare(condition))
    assert torch.equal(mixture(x_of(4), sigma, mixture.prepare(condition)), expected)


def test_a_precision_asked_for_stays_through_every_change_of_hands(
    join, denoisers, files, condition
):
    mixture = join(stored(files, Builder()), residency="active").to(dtype=torch.bfloat16)
    resident = join({n: build(Form()) for n in denoisers})
    resident.load_state_dict(join(denoisers).state_dict())
    resident.to(dtype=torch.bfloat16)
    assert torch.equal(painted(mixture, condition), painted(resident, condition))
    assert {p.dtype for p in mixture.parameters()} == {torch.bfloat16}


def test_loaders_get_the_precision_and_place_of_the_first(join, denoisers, condition):
    loaders = {n: lambda s=s: build(Form(s)) for s, n in enumerate(denoisers)}
    mixture = join(loaders, residency="active").to(dtype=torch.float64)
    mixture(x_of(4).double(), torch.full((4,), 0.5).double(), mixture.prepare(condition))
    assert {p.dtype for p in mixture.parameters()} == {torch.float64}


def test_experts_of_different_forms_take_turns_too(join, denoisers, files, condition):
    sources = {
        name: StoredDenoiser(file, Form(seed), build)
        for seed, (name, file) in enumerate(files.items())
    }
    assert not sources["high"].fits(sources["low"])
    mixture = join(sources, residency="active")
    assert torch.equal(painted(mixture, condition), painted(join(denoisers), condition))


def test_stored_and_other_loaders_may_stand_side_by_side(join, denoisers, files, condition):
    sources = stored(files, Builder()) | {"middle": lambda: build(Form(3))}
    mixture = join(sources, residency="active")
    assert torch.equal(painted(mixture, condition), painted(join(denoisers), condition))


def test_all_takes_loaders_and_denoisers_together(join, denoisers, files, condition):
    sources = {**denoisers, "low": stored(files, Builder())["low"]}
    assert torch.equal(painted(join(sources), condition), painted(join(denoisers), condition))


def test_a_denoiser_that_is_in_memory_already_cannot_be_fetched(join, denoisers):
    with pytest.raises(ConfigError, match="StoredDenoiser"):
        join(denoisers, residency="active")


def test_a_loader_gives_a_denoiser(join, denoisers):
    with pytest.raises(ConfigError, match="a loader gives a denoiser, got a str"):
        join({**denoisers, "low": lambda: "no denoiser"})


def test_what_goes_wrong_in_the_background_is_raised_when_it_is_needed(join, denoisers, condition):
    def broken() -> Denoiser:
        raise CheckpointError("the disk is gone")

    loaders = {"high": lambda: denoisers["high"], "middle": broken, "low": broken}
    mixture = join(loaders, residency="active")
    context = mixture.prepare(condition)
    top = torch.full((4,), 80.0)
    mixture(x_of(4), top, context)
    with pytest.raises(CheckpointError, match="the disk is gone"):
        mixture(x_of(4), torch.full((4,), 1.0), context)
    expected = denoisers["high"](x_of(4), top, denoisers["high"].prepare(condition))
    assert torch.equal(mixture(x_of(4), top, context), expected)


def test_a_failed_change_of_hands_is_not_taken_for_a_good_one(
    join, denoisers, files, condition, tmp_path
):
    other = {key: t.contiguous()[:1] for key, t in denoisers["low"].network.state_dict().items()}
    save_file(other, tmp_path / "low.safetensors")
    for low in (Form(), Form(seed=7)):  # to be filled in, and to be built anew
        sources = stored(files, build)
        sources["low"] = StoredDenoiser(tmp_path / "low.safetensors", low, build)
        mixture = join(sources, residency="active")
        context = mixture.prepare(condition)
        for _ in range(2):
            with pytest.raises(CheckpointError, match="does not fit"):
                mixture(x_of(4), torch.full((4,), 0.01), context)
        level = torch.full((4,), 80.0)
        expected = denoisers["high"](x_of(4), level, denoisers["high"].prepare(condition))
        assert torch.equal(mixture(x_of(4), level, context), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float16])
def test_weights_of_any_type_come_as_torch_would_load_them(dtype, denoisers, tmp_path):
    state = {k: t.to(dtype).contiguous() for k, t in denoisers["low"].network.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    ours = StoredDenoiser(tmp_path / "weights.safetensors", Form(), build)()
    theirs = build(Form())
    theirs.network.load_state_dict(state)
    for (name, mine), (_, wanted) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert torch.equal(mine, wanted), name
        assert mine.stride() == wanted.stride(), name


def test_fetched_bytes_fill_as_the_file_does(denoisers, files):
    source = StoredDenoiser(files["low"], Form(), build)
    ours = build(Form())
    source.fill(ours, torch.frombuffer(bytearray(files["low"].read_bytes()), dtype=torch.uint8))
    wanted = denoisers["low"].state_dict().values()
    assert all(map(torch.equal, ours.state_dict().values(), wanted))


def write(path: Path, header: object, data: bytes, *, pad: int = 0) -> Path:
    text = json.dumps(header).encode() + b" " * pad
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_tensors_at_odd_addresses_are_read_too(tmp_path):
    class One(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2))
            self.empty = torch.nn.Parameter(torch.zeros(0))

    numbers = torch.tensor([1.5, -2.0])
    header = {
        "__metadata__": {"format": "pt"},
        "weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "empty": {"dtype": "F32", "shape": [0], "data_offsets": [8, 8]},
    }
    odd = 1 - len(json.dumps(header)) % 2
    file = write(tmp_path / "odd", header, numbers.numpy().tobytes(), pad=odd)
    denoiser = StoredDenoiser(file, None, lambda _: Denoiser(One()))()
    assert torch.equal(denoiser.network.weight, numbers)


@pytest.mark.parametrize(
    ("header", "size", "words"),
    [
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, 4, "does not lie"),
        ({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, 8, "does not lie"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [-16, -8]}}, 8, "does not lie"),
        ({"w": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, 8, "of type C64"),
        ({"w": {"shape": [1]}}, 8, "dtype"),
        ({"w": 1}, 8, "safetensors"),
        (["w"], 8, "safetensors"),
        (1, 8, "safetensors"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(header, size, words, tmp_path):
    file = write(tmp_path / "file", header, bytes(size))
    with pytest.raises(CheckpointError) as caught:
        StoredDenoiser(file, Form(), build)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"\x05", b"\xff" * 64, b"\x08" + bytes(63)])
def test_a_file_that_is_missing_or_something_else_is_refused(content, tmp_path):
    file = tmp_path / "weights.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        StoredDenoiser(file, Form(), build)


def test_weights_of_another_network_are_refused_and_nothing_is_overwritten(denoisers, tmp_path):
    state = {k: t.contiguous() for k, t in denoisers["low"].network.state_dict().items()}
    first = next(iter(state))
    save_file({k: t for k, t in state.items() if k != first}, tmp_path / "weights")
    denoiser = build(Form())
    before = [t.clone() for t in denoiser.state_dict().values()]
    with pytest.raises(CheckpointError, match=rf"{first} is missing in the file"):
        StoredDenoiser(tmp_path / "weights", Form(), build).fill(denoiser)
    assert all(map(torch.equal, denoiser.state_dict().values(), before))


def resident_kib(file: Path) -> int:
    """How much of a mapped file this process holds, as Linux tells."""
    found, is_here = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            is_here = line.endswith(str(file))
        elif is_here and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is resident")
def test_the_pages_of_a_file_are_given_back_once_they_are_read(tmp_path):
    class Large(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ParameterList(torch.zeros(2**18) for _ in range(8))

    file = (tmp_path / "weights.safetensors").resolve()
    save_file({f"layers.{i}": torch.full((2**18,), float(i)) for i in range(8)}, file)
    source = StoredDenoiser(file, None, lambda _: Denoiser(Large()))
    denoiser = source()
    assert [layer[0].item() for layer in denoiser.network.layers] == list(range(8))
    assert resident_kib(file) < 1024  # of 8192: less than one of the tensors
    source.fill(denoiser)  # and what was given back is read again
    assert [layer.sum().item() for layer in denoiser.network.layers] == [
        i * 2**18 for i in range(8)
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_next_expert_waits_in_pinned_memory(join, denoisers, files, condition):
    sources = stored(files, Builder())
    waiting = sources["low"].fetch(torch.device("cuda"))
    assert waiting is not None
    assert waiting.is_pinned()
    mixture = join(sources, residency="active").to(device="cuda")
    resident = join({name: build(Form()) for name in denoisers})
    resident.load_state_dict(join(denoisers).state_dict())
    resident.to(device="cuda")
    told = condition.to(device="cuda")
    for sigma in (80.0, 1.0, 0.01, 80.0):
        level, x = torch.full((4,), sigma, device="cuda"), x_of(4).cuda()
        ours = mixture(x, level, mixture.prepare(told))
        assert torch.equal(ours, resident(x, level, resident.prepare(told)))
