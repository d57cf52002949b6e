"""The environment of processes that the tool starts, and whether the process that a job said it is still lives."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tdmpc_lab.jobs.metrics import as_int
from tdmpc_lab.text import parse_time

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


_ENDED = ("Z", "X")
_SLACK_S = 5.0  # the clock may have been set between the start of the process and its event


def last_start(events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The last `started` event."""
    return next((event for event in reversed(events) if event.get("event") == "started"), None)


def is_here(start: Mapping[str, Any]) -> bool:
    """Whether this attempt was started on this machine."""
    return start.get("host") == socket.gethostname()


def live_pid(start: Mapping[str, Any] | None) -> int | None:
    """The process of this attempt if it is on this machine and lives, else None.

    Process ids are used again: one with another `process_mark` is another process. An event without a mark, of an
    older version, is compared by the clock: one that began after the event is another process.
    """
    if start is None or not is_here(start):
        return None
    pid, noted = as_int(start.get("pid")), parse_time(start.get("time"))
    if isinstance(start.get("process"), str):
        return pid if pid is not None and pid > 1 and process_mark(pid) == start["process"] else None
    began = _began(pid) if pid is not None and pid > 1 else None
    if began is None or (noted is not None and began > noted.timestamp() + _SLACK_S):
        return None
    return pid


def process_mark(pid: int) -> str | None:
    """What no other process has, whatever is done to the clock: the boot, and when in it this one began.

    None when there is no such process, or it has ended, or this system does not tell.
    """
    try:
        fields = _fields(pid)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return None if fields[0] in _ENDED else f"{boot} {fields[19]}"


def _fields(pid: int) -> list[str]:
    """What the system says of a process, from its state on. Raises OSError."""
    # The name, second field, is in brackets and may hold anything.
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _began(pid: int) -> float | None:
    """When a process began, in seconds since 1970; None when there is none, or it has ended (zombie)."""
    try:
        fields = _fields(pid)
        boot = next(x for x in Path("/proc/stat").read_text(encoding="ascii").splitlines() if x.startswith("btime "))
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in _ENDED:
        return None
    return float(boot.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
