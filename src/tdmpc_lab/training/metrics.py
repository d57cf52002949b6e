"""Where metric rows go, and how losses are gathered on the device between two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tdmpc_lab.errors import NonFiniteError, RecordError
from tdmpc_lab.files import Guard, JsonlWriter

Row = dict[str, Any]


class MetricSink(Protocol):
    """Takes metric rows in the order they happen; can forget those after a mark, when a run is resumed there."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Keep one row."""

    def mark(self) -> int:
        """The present end of the rows, to be stored in a checkpoint."""

    def rewind(self, mark: int) -> None:
        """Drop every row logged after `mark` was taken: they will be made again.

        Raises RecordError when the rows up to there are not there any more.
        """

    def holds(self, mark: int) -> bool:
        """Whether the rows up to `mark` are there."""

    def sync(self) -> None:
        """Have the rows logged so far survive a power cut. Called from another thread than the others."""

    def close(self) -> None:
        """No rows come after this."""


class JsonlSink:
    """Rows appended to a JSONL file, one object a line; a mark is a byte offset.

    `guard()` is entered around every change of the file; what it raises keeps the file as it is.
    """

    def __init__(self, path: Path, guard: Guard = nullcontext) -> None:
        self._guard = guard
        with guard():
            self._writer = JsonlWriter(path)

    def log(self, row: Mapping[str, Any]) -> None:
        with self._guard():
            self._writer.append(row)

    def mark(self) -> int:
        return self._writer.offset

    def rewind(self, mark: int) -> None:
        with self._guard():
            try:
                self._writer.truncate_to(mark)
            except ValueError as error:
                raise RecordError(
                    f"{error}: the checkpoint was taken when the file had {mark:,} bytes, and something else than this "
                    "tool has changed it since"
                ) from error

    def holds(self, mark: int) -> bool:
        return mark <= self._writer.offset

    def sync(self) -> None:
        self._writer.sync()

    def close(self) -> None:
        self._writer.close()


class LossMeter:
    """Means of the update's scalars since the last reading, and a watch for NaN and Inf.

    All arithmetic stays on the device; the host waits for it only in `check` and `read`.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sum: Tensor | None = None
        self._bad_since: Tensor | None = None  # step of the first non-finite value per term, -1 for none
        self._count = 0

    def add(self, losses: Mapping[str, Tensor], step: int) -> None:
        """Add one update's scalars, made at environment step `step`."""
        values = torch.stack([value.float() for value in losses.values()])
        if self._sum is None or self._bad_since is None:
            self._names = list(losses)
            self._sum = torch.zeros_like(values)
            self._bad_since = torch.full(values.shape, -1, dtype=torch.long, device=values.device)
        self._sum += values
        first_bad = (self._bad_since < 0) & ~values.isfinite()
        self._bad_since = self._bad_since.masked_fill(first_bad, step)
        self._count += 1

    def check(self, last_checkpoint: Callable[[], str]) -> None:
        """Stop if any term was NaN or Inf since the last reading.

        Raises:
            NonFiniteError: names the first step and the terms, and what `last_checkpoint` says.
        """
        if self._bad_since is None:
            return
        bad = {n: s for n, s in zip(self._names, self._bad_since.tolist(), strict=True) if s >= 0}
        if bad:
            step = min(bad.values())
            first = [name for name, at in bad.items() if at == step]
            own = [name for name in first if name.startswith("loss/") and name != "loss/total"]
            terms = ", ".join(own or first)  # one bad loss spoils the sums and norms after it
            raise NonFiniteError(
                f"NaN or Inf at step {step:,} in {terms}; last good checkpoint: {last_checkpoint()}. Things to look "
                "at: agent.lr, agent.grad_clip, the size of rewards and observations"
            )

    def read(self, last_checkpoint: Callable[[], str]) -> dict[str, float]:
        """Means since the last reading, which starts anew. Empty without an update in between.

        Raises:
            NonFiniteError: as `check`.
        """
        self.check(last_checkpoint)
        if self._sum is None or self._count == 0:
            return {}
        means = dict(zip(self._names, (self._sum / self._count).tolist(), strict=True))
        self._sum = self._bad_since = None
        self._count = 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, so that a resumed run logs the same means."""
        return {"names": self._names, "sum": self._sum, "bad_since": self._bad_since, "count": self._count}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take over what `state_dict` gave."""
        self._names = list(state["names"])
        self._sum = None if state["sum"] is None else state["sum"].to(device)
        self._bad_since = None if state["bad_since"] is None else state["bad_since"].to(device)
        self._count = int(state["count"])
