"""Which call into an environment runs in which thread: for a watcher in another thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tdmpc_lab.envs.undisturbed import undisturbed


@dataclass(frozen=True, eq=False)
class Call:
    """One call of `reset` or `step`; each is only the same as itself."""

    environment: str
    step: int
    """Number of the step in its episode, 0 for the reset."""
    seed: int
    """Of the episode."""

    def __str__(self) -> str:
        what = f"step {self.step}" if self.step else "the reset"
        return f"environment '{self.environment}', {what} of the episode with seed {self.seed}"


_running: dict[int, Call] = {}


@contextmanager
def calling(environment: str, step: int, seed: int) -> Iterator[None]:
    """Around a call into an environment, which leaves this process as it was."""
    thread = threading.get_ident()
    _running[thread] = Call(environment, step, seed)
    try:
        with undisturbed():
            yield
    finally:
        _running.pop(thread, None)


def running_calls() -> dict[int, Call]:
    """The running calls, by thread."""
    return dict(_running)
