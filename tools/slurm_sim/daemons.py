"""Processes that outlive the command that started them, and are found again by their pid files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

POLL_S = 0.05
TAIL_LINES = 15


class SimError(Exception):
    """Something that the user has to know; `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def began(pid: int) -> str | None:
    """When a process began, in the kernel's own count; None when there is none, or it has ended (zombie).

    Process ids are used again: a pid with another beginning is another process.
    """
    try:
        # The name, second field, is in brackets and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


class Daemon:
    """One daemon of the cluster: `run/NAME.pid` says which process it is, `log/NAME.out` what it printed."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.pid_file = folder / "run" / f"{name}.pid"
        self.log = folder / "log" / f"{name}.out"

    def pid(self) -> int | None:
        """Its process if it lives, else None."""
        try:
            pid, beginning = self.pid_file.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if began(int(pid)) == beginning else None

    def start(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start it in a session of its own, unless it runs. The command has to stay in the foreground."""
        if self.pid() is not None:
            return
        with self.log.open("wb") as log:
            process = _Detached(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, cwd="/", start_new_session=True
            )
        beginning = began(process.pid) or "ended"
        self.pid_file.write_text(f"{process.pid} {beginning}\n")

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Raises SimError, with what it printed, when it ends instead or takes longer than that."""
        end = time.monotonic() + seconds
        while True:
            is_ready = ready()
            if self.pid() is None:
                raise SimError(f"{self.name} ended at its start. {self.tail()}")
            if is_ready:
                return
            if time.monotonic() > end:
                raise SimError(f"{self.name} is not ready after {seconds:.0f} s. {self.tail()}")
            time.sleep(POLL_S)

    def tail(self) -> str:
        """The end of what it printed, for a message."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        except FileNotFoundError:
            lines = []
        return f"The end of {self.log}:\n" + "\n".join(f"    {line}" for line in lines or ["(empty)"])

    def stop(self, seconds: float, *, kill: bool = False) -> None:
        """SIGTERM (or SIGKILL at once), SIGKILL after `seconds`. Harmless when it does not run."""
        pid = self.pid()
        if pid is not None:
            end_processes([pid], seconds, kill=kill)
        self.pid_file.unlink(missing_ok=True)


class _Detached(subprocess.Popen[bytes]):
    """A process that is meant to outlive this one: Popen would complain about that when it is dropped."""

    def __del__(self) -> None:
        pass


def end_processes(pids: Iterable[int], seconds: float, *, kill: bool = False) -> None:
    """SIGTERM (or SIGKILL at once) to all, SIGKILL to those that live after `seconds`; returns when all are gone."""
    alive = {pid: beginning for pid in pids if (beginning := began(pid)) is not None}
    _signal(alive, signal.SIGKILL if kill else signal.SIGTERM)
    end = time.monotonic() + seconds
    while alive := {pid: beginning for pid, beginning in alive.items() if began(pid) == beginning}:
        if time.monotonic() > end:
            _signal(alive, signal.SIGKILL)
            end = time.monotonic() + seconds
        time.sleep(POLL_S)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
