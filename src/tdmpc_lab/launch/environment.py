"""The environment that jobs are started with: the shell's, without what a scheduler left in it."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_LEAKS = ("SLURM_", "SBATCH_", "SRUN_", "SUBMITIT_")
_KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SUBMITIT_PREEMPT_SIGNAL"})  # where the cluster is


@dataclass(frozen=True)
class Workplace:
    """Where a job's process runs, and where its Python looks for modules before anywhere else."""

    folder: Path
    python_path: tuple[Path, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    """Set in its environment too."""

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """`environ` with what the job needs."""
        path = [*map(str, self.python_path), *filter(None, [environ.get("PYTHONPATH")])]
        return {**environ, **self.variables, **({"PYTHONPATH": os.pathsep.join(path)} if path else {})}

    def shell_lines(self) -> list[str]:
        """The same for a shell that is in any folder."""
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self.variables.items()]
        if self.python_path:
            path = os.pathsep.join(map(str, self.python_path))
            lines.append(f"export PYTHONPATH={shlex.quote(path)}${{PYTHONPATH:+:$PYTHONPATH}}")
        return [*lines, f"cd {shlex.quote(str(self.folder))}"]


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
