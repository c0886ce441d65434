"""Importing bottega is silent, fast, and does nothing but import."""

import subprocess
import sys
import textwrap

from source_tree import MODULES

WITHOUT_TORCH = [
    name for name in MODULES if name == "bottega.cli" or name.startswith("bottega.cli.")
]

WHEN_USED = (
    "accelerate",
    "diffusers",
    "fastapi",
    "matplotlib",
    "peft",
    "scipy",
    "tensorboard",
    "tokenizers",
    "transformers",
    "uvicorn",
    "webdataset",
)

GUARD = """
    import sys

    def guard(event, args):
        if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "subprocess.Popen", "os.system"):
            raise RuntimeError(f"work at import: {event} {args}")
        if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
            if "__pycache__" not in str(args[0]):
                raise RuntimeError(f"work at import: {event} {args}")

    sys.addaudithook(guard)
"""


def in_a_fresh_interpreter(code: str) -> str:
    """What ``code`` prints when nothing has been imported before it."""
    done = subprocess.run(
        [
            sys.executable,
            "-B",
            "-W",
            "error::DeprecationWarning:bottega",
            "-c",
            textwrap.dedent(code),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"importing spoke up: {done.stderr}"
    return done.stdout


def test_importing_bottega_takes_little_and_brings_no_torch():
    out = in_a_fresh_interpreter(
        GUARD
        + """
    import time
    before = time.process_time()
    import bottega
    spent = time.process_time() - before
    print("torch" in sys.modules, "numpy" in sys.modules, spent < 0.3)
    """
    )
    assert out.split() == ["False", "False", "True"]


def test_the_command_line_imports_no_torch_until_a_command_runs():
    out = in_a_fresh_interpreter(
        GUARD
        + f"""
    import importlib
    for name in {WITHOUT_TORCH!r}:
        importlib.import_module(name)
        heavy = [m for m in ("torch", "numpy", *{WHEN_USED!r}) if m in sys.modules]
        if heavy:
            print(name, "imports", *heavy)
            break
    """
    )
    assert not out, out


def test_importing_every_module_is_silent_and_brings_only_what_it_needs():
    out = in_a_fresh_interpreter(
        """
    import torch
    """
        + GUARD
        + f"""
    import importlib
    torch.manual_seed(0)
    state, threads, dtype = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
    brought = set(sys.modules)
    for name in {MODULES!r}:
        importlib.import_module(name)
        new = sorted(set({WHEN_USED!r}) & (set(sys.modules) - brought))
        if new:
            print(name, "imports", *new)
        brought |= set(new)
    if not torch.equal(state, torch.get_rng_state()):
        print("importing drew random numbers")
    if threads != torch.get_num_threads() or dtype != torch.get_default_dtype():
        print("importing changed torch's settings")
    if not torch.is_grad_enabled() or torch.cuda.is_initialized():
        print("importing changed the grad mode or woke a device")
    """
    )
    assert not out, out
