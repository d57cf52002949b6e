"""`.attempts/` of a job folder: which of several processes that run the same job owns its files.

A scheduler that loses sight of a node starts the job again elsewhere, while the old process may be alive and
writing. Every attempt has a number and a file of its own there, `<number>.json`, which it alone writes:

1. An attempt claims the next free number by making its file (which only one can), and gives a heartbeat in
   it every few seconds, from a thread.
2. It then waits until every earlier attempt has let go, has yielded, or has given no sign for long.
3. An owner that sees a higher number has lost. It yields between two writes, and writes nothing after that.

The highest number wins, because that is the one the scheduler knows of. Only rising counters and times of one
clock are compared: of the waiting machine, or of the file server. So clocks that disagree do no harm, and no
lock of the file system is needed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from tdmpc_lab.errors import AttemptLostError
from tdmpc_lab.jobs.heartbeats import heartbeat_file
from tdmpc_lab.jobs.state import SILENT_S
from tdmpc_lab.sharing import make_folder

BEAT_S = 3.0
DEAD_S = SILENT_S
_POLL_S = 0.3
_SIZE = 512  # a sign is always written whole and in one piece
_NAME = re.compile(r"(\d{1,9})\.json")

AttemptPhase = Literal["alive", "released", "yielded"]


@dataclass(frozen=True)
class Heartbeat:
    """What an attempt says in its file."""

    phase: AttemptPhase
    beat: int
    """Rises with every sign."""
    host: str
    pid: int
    place: str
    """Where process ids mean the same: this boot of this machine, this namespace."""
    time: str = ""
    """When, by the clock of its machine: for people, and for how long a job ran that was killed. Nothing here is
    decided by it."""


class AttemptLease:
    """The right of one attempt to write into a job's folder.

    `number` is the attempt's. `lost_to` is the attempt that has taken over, None as long as none has.
    """

    def __init__(self, folder: Path, number: int, *, beat_s: float = BEAT_S, dead_s: float = DEAD_S) -> None:
        self.number = number
        self.lost_to: int | None = None
        self._folder, self._beat_s, self._dead_s = folder, beat_s, dead_s
        self._sign = Heartbeat("alive", 0, socket.gethostname(), os.getpid(), _place())
        self._writing = threading.RLock()  # held while the job's files are written
        self._wake = threading.Event()
        self._closed = False
        self._on_lost: list[Callable[[int], None]] = []
        self._thread = threading.Thread(target=self._live, name="attempt-lease", daemon=True)

    @classmethod
    def claim(cls, folder: Path, at_least: int = 1, *, beat_s: float = BEAT_S, dead_s: float = DEAD_S) -> Self:
        """Take the next number, `at_least` or more, and begin to give signs. The files are not owned yet.

        Raises OSError.
        """
        make_folder(folder, exist_ok=True)
        number = max(at_least, max(_numbers(folder), default=0) + 1)
        while True:
            try:
                os.close(
                    os.open(heartbeat_file(folder, number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                )
                break
            except FileExistsError:
                number += 1
        lease = cls(folder, number, beat_s=beat_s, dead_s=dead_s)
        lease._beat()
        lease._thread.start()
        return lease

    def wait(self, give_up: Callable[[], object] = lambda: False) -> bool:
        """Wait until no earlier attempt can write any more; True when this one owns the files now.

        False when `give_up()` became true or a later attempt came.
        """
        began = time.monotonic()
        seen: dict[int, tuple[Heartbeat | None, float]] = {}  # each one's last sign, and since when it is known
        while self.lost_to is None and not give_up():
            earlier = [number for number in _numbers(self._folder) if number < self.number]
            now = time.monotonic()
            alive = False
            for number in earlier:
                sign = _read(self._folder, number)
                if number not in seen:  # it may have been silent for long by now
                    seen[number] = (sign, began - self._silence(number))
                elif seen[number][0] != sign:
                    seen[number] = (sign, now)
                alive = alive or not (_over(sign) or now - seen[number][1] >= self._dead_s)
            if not alive:
                self._look()  # a later attempt may have come since the last heartbeat
                return self.lost_to is None
            time.sleep(min(_POLL_S, self._beat_s))
        return False

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Around every write into the job's folder. While it is held, this attempt does not yield.

        Raises AttemptLostError when a later attempt has come, and after `release`.
        """
        with self._writing:
            self._look()
            if self._closed:
                raise AttemptLostError(f"attempt {self.number} of this job is over and writes no more")
            if self.lost_to is not None:
                raise AttemptLostError(
                    f"attempt {self.lost_to} of this job has taken over; attempt {self.number} writes no more"
                )
            yield

    def on_lost(self, call: Callable[[int], None]) -> None:
        """Have `call(number of the winner)` called, in a thread, before this attempt yields."""
        self._on_lost.append(call)

    def release(self) -> None:
        """Let go of the files: the next attempt need not wait. May be called again, and after a loss."""
        self._closed = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._sign.phase == "alive":
            with contextlib.suppress(OSError):  # then the next attempt waits until this one is silent for long
                self._say("released" if self.lost_to is None else "yielded")

    def _live(self) -> None:
        """Heartbeats until the end, or until a later attempt has come and this one has yielded."""
        while not self._closed:
            with contextlib.suppress(OSError):  # a file system that is full or away: the next sign may get through
                self._beat()
            if self.lost_to is not None:
                self._yield(self.lost_to)
                return
            self._wake.wait(self._beat_s)
            if not self._closed:
                self._wake.clear()

    def _beat(self) -> None:
        self._say("alive")
        self._look()

    def _look(self) -> None:
        if self.lost_to is not None:
            return
        highest = max(_numbers(self._folder), default=0)
        if highest > self.number:
            self.lost_to = highest
            self._wake.set()

    def _yield(self, winner: int) -> None:
        for call in self._on_lost:
            call(winner)
        while not self._writing.acquire(timeout=self._beat_s):  # it is in the midst of a write: still alive
            with contextlib.suppress(OSError):
                self._say("alive")
        try:
            with contextlib.suppress(OSError):
                self._say("yielded")
        finally:
            self._writing.release()

    def _say(self, phase: AttemptPhase) -> None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self._sign = replace(self._sign, phase=phase, beat=self._sign.beat + 1, time=now)
        fd = os.open(heartbeat_file(self._folder, self.number), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.pwrite(fd, json.dumps(asdict(self._sign)).encode()[: _SIZE - 1].ljust(_SIZE - 1) + b"\n", 0)
        finally:
            os.close(fd)

    def _silence(self, number: int) -> float:
        """Seconds between the last sign of an earlier attempt and this one's, by the file server's clock."""
        try:
            mine, other = (heartbeat_file(self._folder, n).stat().st_mtime for n in (self.number, number))
        except OSError:
            return 0.0
        return max(0.0, mine - other)


def last_heartbeat_s(folder: Path) -> float | None:
    """Seconds since the last heartbeat of the highest attempt, by this machine's clock and the file server's;
    None where there is none."""
    try:
        number = max(_numbers(folder), default=None)
        return None if number is None else max(0.0, time.time() - heartbeat_file(folder, number).stat().st_mtime)
    except OSError:
        return None


def heartbeat_s(folder: Path) -> float | None:
    """As `last_heartbeat_s`, but infinite where that attempt said that it has ended, or its process is gone."""
    age = last_heartbeat_s(folder)
    if age is None:
        return None
    return math.inf if _over(_read(folder, max(_numbers(folder)))) else age


def beats(folder: Path) -> bool:
    """Whether the last attempt gave a heartbeat a moment ago, and has not ended since as far as is known."""
    age = heartbeat_s(folder)
    return age is not None and age <= DEAD_S


def _numbers(folder: Path) -> list[int]:
    return [int(match[1]) for entry in os.scandir(folder) if (match := _NAME.fullmatch(entry.name))]


def _read(folder: Path, number: int) -> Heartbeat | None:
    """An attempt's last sign; None while it has given none."""
    try:
        data = json.loads(heartbeat_file(folder, number).read_bytes())
        return Heartbeat(
            data["phase"],
            int(data["beat"]),
            str(data["host"]),
            int(data["pid"]),
            str(data["place"]),
            str(data.get("time", "")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _over(sign: Heartbeat | None) -> bool:
    """Whether an attempt is sure to write no more: it said so, or its process was of this machine and is gone."""
    if sign is None:
        return False
    if sign.phase != "alive":
        return True
    if sign.host != socket.gethostname() or sign.place != _place():
        return False
    try:
        os.kill(sign.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's process has its number
        return False
    return False


def _place() -> str:
    """Two processes with the same text here see the same process ids; unique where that can't be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"unknown {os.getpid()} {time.time_ns()}"
