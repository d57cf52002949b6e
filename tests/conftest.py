"""What holds for every test: one thread, and nothing of the surrounding machine's jobs in the environment."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tdmpc_lab.launch.process import COMMAND_PREFIXES
from tdmpc_lab.tracking import store
from tdmpc_lab.tracking.store import create_sqlite

# Before anything imports torch: several test processes with a thread pool each only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# And for what runs before a test's own environment is made: a module's fixtures, and the server that forks processes.
os.environ["TDMPC_LAB_KERNELS"] = "torch"

FOREIGN_PREFIXES = ("TDMPC_LAB_", "MLFLOW_", "SLURM_", "SUBMITIT_", *COMMAND_PREFIXES)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `cuda` are skipped without a device; torch is imported for them alone."""
    if item.get_closest_marker("cuda") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device here")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests behave the same inside a SLURM job, and never see the MLflow server or profiles of the user."""
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)
    for name in [name for name in os.environ if name.startswith(FOREIGN_PREFIXES)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TDMPC_LAB_KERNELS", "torch")  # nothing is compiled for a test that is not about that


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """A test that sets torch's threads leaves them at one for the next; torch is never imported for this."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """An MLflow store without experiments, made when first asked for: MLflow takes seconds for one."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"

    def make() -> Path:
        if not path.exists():
            create_sqlite(path)
        return path

    return make


@pytest.fixture(autouse=True)
def quick_stores(store_template: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """New SQLite stores are copies, in this process; jobs make theirs themselves."""
    monkeypatch.setattr(store, "create_sqlite", lambda path: _copy(store_template(), path))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of an empty project (a folder that holds `experiments`), which is the current folder."""
    root = tmp_path / "project"
    (root / "experiments").mkdir(parents=True)
    monkeypatch.chdir(root)
    return root
