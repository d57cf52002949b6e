"""The environment that jobs are started with: the shell's, without what a scheduler left in it."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# SLURM's commands take options from variables named after them: SQUEUE_PARTITION hides jobs, SCANCEL_STATE spares
# them. What a scheduler or submitit left in a shell begins with SLURM_ and SUBMITIT_.
COMMAND_PREFIXES = ("SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SACCT_", "SINFO_", "SCONTROL_", "SCANCEL_")
_LEAKS = ("SLURM_", "SUBMITIT_", *COMMAND_PREFIXES)
# Where the cluster is and how to sign in there. SLURM_CLUSTERS is none of these: it sends commands to another cluster
# than the one whose accounts are read, where the same ids are other jobs.
_KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SUBMITIT_PREEMPT_SIGNAL"})


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
    """A copy without the variables of the SLURM job or submitit job that the shell itself runs in, and without those
    that are options to SLURM's commands. Every call of SLURM and every job gets its environment from here.

    Left in, they make a job take itself for another one and bind it to that one's processors, and the commands
    answer something else than they were asked. Relative entries of PYTHONPATH become absolute: the job starts in
    another folder.
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
