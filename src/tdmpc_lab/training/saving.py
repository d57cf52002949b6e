"""How the training loop saves: it waits for the copy alone, and tells of a checkpoint once it is on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tdmpc_lab.agent import Replay
from tdmpc_lab.envs import EpisodeSetting
from tdmpc_lab.errors import CheckpointError
from tdmpc_lab.training.checkpoints import CheckpointStore, Saved, reading_state
from tdmpc_lab.training.curriculum import Curriculum
from tdmpc_lab.training.metrics import MetricSink


class Saver:
    """Has the checkpoints of one training written.

    Args:
        store: None keeps nothing on disk.
        tell: told of each checkpoint that is on disk: (kind, fields).
    """

    def __init__(
        self,
        store: CheckpointStore | None,
        sink: MetricSink,
        curriculum: Curriculum,
        tell: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._store, self._sink, self._curriculum, self._tell = store, sink, curriculum, tell
        self._running: Sequence[EpisodeSetting] = ()
        self._held_s = 0.0

    def begin(
        self, step: int, state: Callable[[], dict[str, Any]], replay: Replay, running: Sequence[EpisodeSetting]
    ) -> None:
        """Have the training's `state()` and its replay written; an earlier write is waited for.

        Raises what that one met: OSError, and what the store's guard raises.
        """
        if self._store is None:
            return
        began = time.monotonic()
        self.finish()
        self._running = list(running)
        self._store.begin(step, state(), replay, first=self._sink.sync)
        self._held_s += time.monotonic() - began

    def poll(self) -> None:
        """Tell of a checkpoint that is on disk now. Raises as `begin`."""
        if self._store is not None:
            self._written(self._store.poll())

    def finish(self) -> None:
        """Wait until nothing is being written. Raises as `begin`."""
        if self._store is not None:
            self._written(self._store.finish())

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Within, checkpoints are begun; afterwards none is being written any more."""
        try:
            yield
        except BaseException:
            if self._store is not None:  # what it meets is not told: there is worse
                self._store.settle()
            raise
        self.finish()

    def held(self) -> dict[str, float]:
        """Seconds that training waited for checkpoints since the last call, for a row; empty when there was none."""
        held, self._held_s = self._held_s, 0.0
        return {"checkpoint_s": round(held, 4)} if held else {}

    def last(self) -> str:
        """The last checkpoint, for a message; one that is being written is waited for."""
        return "checkpoints are off" if self._store is None else self._store.latest_name()

    def _written(self, saved: Saved | None) -> None:
        if saved is None or self._store is None:
            return
        self._curriculum.saved(self._running, self._store.keep)
        fields = {"held_s": round(saved.held_s, 4), "write_s": round(saved.write_s, 4), "bytes": saved.size}
        self._tell("checkpoint", {"step": saved.step, "file": saved.path.name, **fields})


def rows_there(sink: MetricSink) -> Callable[[Mapping[str, Any]], None]:
    """A check for `CheckpointStore.load_latest`: that the rows logged before a checkpoint are there still."""

    def check(state: Mapping[str, Any]) -> None:
        with reading_state():
            whole = sink.holds(int(state["counters"]["metrics_mark"]))
        if not whole:
            raise CheckpointError(
                f"the checkpoint of step {state['step']} was taken with more metrics than there are now: their file "
                "was cut, or lost its end in a power cut"
            )

    return check
