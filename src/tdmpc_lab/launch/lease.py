"""`.supervisor.lock` of a job folder: held by the one process that supervises the job, for its life."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tdmpc_lab.errors import UsageError
from tdmpc_lab.jobs.paths import JobPaths

HolderPhase = Literal["waiting", "running"]

LEASE_VARIABLE = "TDMPC_LAB_LEASE_FD"
_SIZE = 512  # always written whole and in one piece, so that a reader never sees half of it
_TRIES, _TRY_S = 20, 0.05  # somebody who only looks holds the lock for a moment


@dataclass(frozen=True)
class Holder:
    """Who supervises, or did: the file keeps the last one."""

    pid: int
    """0 while the supervisor is being started."""
    host: str
    phase: HolderPhase
    events: int
    """Events that the job had when this phase began."""


class Lease:
    """The right to supervise a job. The operating system takes it back when the last process that has it
    open ends, however it ends."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def take(cls, paths: JobPaths) -> Self:
        """Raises UsageError when another process has it, OSError when the folder is missing."""
        fd = os.open(_file(paths), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        for attempt in range(_TRIES):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return cls(fd)
            except BlockingIOError:
                if attempt < _TRIES - 1:
                    time.sleep(_TRY_S)
        holder = _read(fd)
        os.close(fd)
        who = f" by process {holder.pid} on {holder.host}" if holder else ""
        raise UsageError(f"job {paths.id} is being run already{who}; wait for its end, or cancel it first")

    @classmethod
    def take_or_inherit(cls, paths: JobPaths) -> Self:
        """The lease that the process which started this one handed on, else as `take`."""
        handed_on = os.environ.pop(LEASE_VARIABLE, "")
        if handed_on.isdecimal():
            fd = int(handed_on)
            try:
                if os.path.samestat(os.fstat(fd), _file(paths).stat()):
                    os.set_inheritable(fd, False)
                    return cls(fd)
            except OSError:  # an old variable: no such file is open here
                return cls.take(paths)
        return cls.take(paths)

    def note(self, phase: HolderPhase, events: int, *, starting: bool = False) -> None:
        """Say in the file that this process holds it and for what; `starting`: for one that is to come."""
        holder = Holder(0 if starting else os.getpid(), socket.gethostname(), phase, events)
        os.pwrite(self.fd, json.dumps(asdict(holder)).encode().ljust(_SIZE), 0)

    def close(self) -> None:
        """Let go of it in this process; one that inherited it keeps it."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_holder(paths: JobPaths) -> tuple[Holder | None, bool]:
    """The last one who held the lease, and whether it is held now (as far as this machine can tell)."""
    try:
        fd = os.open(_file(paths), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, False
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            held = False
        except BlockingIOError:
            held = True
        return _read(fd), held
    finally:
        os.close(fd)


def _file(paths: JobPaths) -> Path:
    return paths.folder / ".supervisor.lock"


def _read(fd: int) -> Holder | None:
    try:
        data = json.loads(os.pread(fd, _SIZE, 0))
        return Holder(int(data["pid"]), str(data["host"]), data["phase"], int(data["events"]))
    except (ValueError, KeyError, TypeError):
        return None
