"""Imports run one way (the layers are in pyproject.toml)."""

import os
import subprocess
import sys
from pathlib import Path

from source_tree import ROOT


def test_imports_run_one_way(tmp_path: Path):
    lint_imports = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [str(lint_imports), "--no-cache", "--no-logo", "--config", str(ROOT / "pyproject.toml")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
