"""A flag that asks training to stop at the next step boundary."""

from __future__ import annotations


class StopFlag:
    """Set once, from a signal handler or another thread; the first reason stays."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def set(self, reason: str) -> None:
        """Ask for a stop, saying why."""
        if self.reason is None:
            self.reason = reason

    def __bool__(self) -> bool:
        return self.reason is not None
