"""Rows of a training kept in memory, for tests that look at them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tdmpc_lab.training.metrics import Row


class MemorySink:
    """Rows kept in a list: see `training.metrics.MetricSink`."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def log(self, row: Mapping[str, Any]) -> None:
        self.rows.append(dict(row))

    def mark(self) -> int:
        return len(self.rows)

    def rewind(self, mark: int) -> None:
        del self.rows[mark:]

    def holds(self, mark: int) -> bool:
        return mark <= len(self.rows)

    def sync(self) -> None:
        """They are in memory alone."""

    def close(self) -> None:
        """Nothing to let go of."""
