"""The environment that jobs are started with: the shell's, without what a scheduler left in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

_LEAKS = ("SLURM_", "SBATCH_", "SRUN_", "SUBMITIT_")
_KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SUBMITIT_PREEMPT_SIGNAL"})  # where the cluster is


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """A copy without the variables of the SLURM job or submitit job that the shell itself runs in.

    Left in, they make a job take itself for another one and bind it to that one's processors. Relative
    entries of PYTHONPATH become absolute: the job starts in another folder.
    """
    kept = {k: v for k, v in environ.items() if k in _KEPT or not k.startswith(_LEAKS)}
    if path := kept.get("PYTHONPATH"):
        kept["PYTHONPATH"] = os.pathsep.join(str(Path(p).absolute()) for p in path.split(os.pathsep) if p)
    return kept


@contextlib.contextmanager
def clean_process_environment() -> Iterator[None]:
    """Give this process the clean environment for a while; submitit hands on what it finds here."""
    before = dict(os.environ)
    clean = clean_environment(before)
    os.environ.clear()
    os.environ.update(clean)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
