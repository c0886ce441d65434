"""A run finds out by itself whether it is one process or one of several."""

import os
import socket
import subprocess
import sys

from bottega.recipes.machine import engine_here

ASKS = "from bottega.recipes.machine import engine_here as here; e = here(); print(e.rank, e.world_size)"


def test_a_process_alone_is_the_only_one():
    assert engine_here().world_size == 1


def test_processes_that_torchrun_started_find_each_other():
    """Without a GPU too, where nothing but the environment tells of the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ASKS],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **told, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
        )
        for rank in ("0", "1")
    ]
    said = [one.communicate(timeout=300)[0].split() for one in started]
    assert said == [["0", "2"], ["1", "2"]]
