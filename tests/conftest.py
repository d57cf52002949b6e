"""What holds for every test: one thread, and nothing of the surrounding machine's jobs in the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports torch: several test processes with a thread pool each only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

FOREIGN_PREFIXES = ("TDMPC_LAB_", "MLFLOW_", "SLURM_", "SBATCH_", "SUBMITIT_")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests behave the same inside a SLURM job, and never see the MLflow server or profiles of the person."""
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)
    for name in [name for name in os.environ if name.startswith(FOREIGN_PREFIXES)]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """A test that sets torch's threads leaves them at one for the next; torch is never imported for this."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of an empty project (a folder that holds `experiments`), which is the current folder."""
    root = tmp_path / "project"
    (root / "experiments").mkdir(parents=True)
    monkeypatch.chdir(root)
    return root
