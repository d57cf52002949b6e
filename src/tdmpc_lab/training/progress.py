"""Progress for a user: a live display at a terminal, plain lines in a log file. Both are fed with metric rows."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from tdmpc_lab.text import count, duration, number

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from tdmpc_lab.training.metrics import Row


class Progress(Protocol):
    """Shows the progress of one or several jobs."""

    def row(self, job: str, row: Row) -> None:
        """A metric row of `job`."""

    def message(self, job: str, text: str) -> None:
        """Something that happened, in words."""

    def close(self) -> None:
        """Nothing comes after this."""


class _Figures:
    """The latest figures of one job, gathered from rows of different kinds."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.step = 0
        self.rate: float | None = None
        self.values: dict[str, float] = {}

    def take(self, row: Row) -> None:
        """Keep what the row says."""
        self.step = int(row["step"])
        for key, name in (("return", "return"), ("return_mean", "eval"), ("loss/total", "loss")):
            if isinstance(row.get(key), float | int):
                self.values[name] = float(row[key])
        if isinstance(row.get("steps_per_s"), float | int):
            self.rate = float(row["steps_per_s"])

    def left(self) -> str:
        """Time left at the present rate, in words."""
        if not self.rate:
            return "?"
        return duration((self.steps - self.step) / self.rate)


def _shares(row: Row) -> str:
    """Shares of games won, drawn and lost, of an evaluation's row that has them."""
    names = [name for name in ("win", "draw", "loss") if isinstance(row.get(name), float)]
    return "".join(f", {name} {row[name]:.2f}" for name in names)


class PlainProgress:
    """A line for every row of losses and every evaluation."""

    def __init__(self, steps: dict[str, int], stream: TextIO) -> None:
        self._figures = {job: _Figures(total) for job, total in steps.items()}
        self._stream = stream

    def row(self, job: str, row: Row) -> None:
        figures = self._figures[job]
        figures.take(row)
        if row["split"] == "eval":
            self._print(
                job,
                f"step {figures.step:,}: evaluation, return {number(row['return_mean'])} ± "
                f"{number(row['return_std'])} over {count(row['episodes'], 'episode')}{_shares(row)}",
            )
        elif "updates" in row:
            known = "".join(f"  {name} {number(value)}" for name, value in figures.values.items() if name != "eval")
            rate = f"  {number(figures.rate)} steps/s  {figures.left()} left" if figures.rate else ""
            self._print(job, f"step {figures.step:,}/{figures.steps:,}{known}{rate}")

    def message(self, job: str, text: str) -> None:
        self._print(job, text)

    def close(self) -> None:
        """Nothing to let go of."""

    def _print(self, job: str, text: str) -> None:
        prefix = f"{job}: " if len(self._figures) > 1 else ""
        with contextlib.suppress(OSError):  # a log whose disk is full: training continues, the metrics say all of it
            print(prefix + text, file=self._stream, flush=True)


class LiveProgress:
    """Bars that stay in place: step, return, evaluation, loss, steps/s and the time left, one line a job."""

    def __init__(self, steps: dict[str, int]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._figures = {job: _Figures(total) for job, total in steps.items()}
        self._display: RichProgress = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(file=sys.stderr),
        )
        self._tasks: dict[str, TaskID] = {
            job: self._display.add_task(job, total=total, start=False, figures="", left="")
            for job, total in steps.items()
        }
        self._display.start()

    def row(self, job: str, row: Row) -> None:
        figures, task = self._figures[job], self._tasks[job]
        figures.take(row)
        self._display.start_task(task)
        known = [f"{name} {number(value)}" for name, value in figures.values.items()]
        if figures.rate:
            known.append(f"{number(figures.rate)} steps/s")
        left = f"{figures.left()} left" if figures.rate else ""
        fields: dict[str, Any] = {"figures": "  ".join(known), "left": left}
        self._display.update(task, completed=figures.step, **fields)

    def message(self, job: str, text: str) -> None:
        self._display.start_task(self._tasks[job])
        self._display.console.print(f"{job}: {text}", markup=False, highlight=False)

    def close(self) -> None:
        self._display.stop()


def make_progress(steps: dict[str, int], stream: TextIO | None = None) -> Progress:
    """The display for jobs by name and number of steps: live where standard error is a terminal, else plain.

    Plain lines go to `stream`, standard error by default.
    """
    stream = sys.stderr if stream is None else stream
    if stream is sys.stderr and stream.isatty():
        return LiveProgress(steps)
    return PlainProgress(steps, stream)
