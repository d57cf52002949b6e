"""Running a program with a time limit: whatever becomes of it, its last lines are kept and nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GRACE_S = 5.0
LAST_LINES = 25
FOREIGN_PREFIXES = ("TDMPC_LAB_", "MLFLOW_")


@dataclass(frozen=True)
class Ended:
    """What became of a program."""

    code: int | None
    """None: it ran past its limit and was ended."""
    lines: list[str]
    """The last of what it printed, errors included."""

    @property
    def ok(self) -> bool:
        return self.code == 0

    def why(self, limit_s: float) -> str:
        """In words, for a program that did not end well."""
        if self.code is None:
            return f"ended after its limit of {limit_s:.0f} s"
        if self.code < 0:
            return f"its process was ended by {signal.Signals(-self.code).name}"
        return f"exit code {self.code}"


def environment(folder: Path) -> dict[str, str]:
    """For every program: this checkout's code, caches of the check's own, and no store or setting of the user's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_PREFIXES)}
    path = [str(ROOT / "src"), str(ROOT / "tools"), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {
        "PYTHONPATH": os.pathsep.join(path),
        "TDMPC_LAB_CACHE": str(folder / "cache"),
        "XDG_CONFIG_HOME": os.devnull,
    }


def python(*words: str) -> list[str]:
    """A command of the Python that this runs in."""
    return [sys.executable, *words]


def run(command: Sequence[str], folder: Path, log: Path, limit_s: float, cwd: Path = ROOT) -> Ended:
    """Run `command` at `cwd`, its output added to `log`, for `limit_s` at most."""
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            return Ended(127, [str(error)])
        code: int | None = None
        with _no_one_left(process), contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(max(limit_s, 0.0))
    text = log.read_bytes()[start:].decode(errors="replace")
    return Ended(code, text.splitlines()[-LAST_LINES:])


@contextlib.contextmanager
def _no_one_left(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """At the end, however it comes, the process and all of its session's are ended."""
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            end = time.monotonic() + GRACE_S
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
