"""Tables at any width: no figure is cut, and what does not fit beside each other stands below each other."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

sys.path.append(str(Path(__file__).parents[1] / "report"))

from compare_fixtures import games_of_two, make_job

from tdmpc_lab.cli.tables import _flow, grid, print_grid

TITLES = ("variant", "seeds", "final", "games won vs strong")
ROWS = [("baseline", "5", "−150.2 [−180.1, −120.4]", "0.87 [0.83, 0.90] of 300"), ("short", "12", "–", "")]
SOURCE = Path(__file__).resolve().parents[2] / "src"


def drawn(width: int, **options: int) -> str:
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        print_grid(console, TITLES, ROWS, **options)
    return captured.get()


@pytest.mark.parametrize("width", [20, 40, 66, 67, 80, 100, 200])
def test_no_figure_is_cut_at_any_width(width: int) -> None:
    lines = drawn(width).splitlines()
    for cell in (cell for row in ROWS for cell in row if cell and len(cell) < width - 23):
        assert any(cell in line for line in lines), cell
    assert "…" not in "".join(lines)
    # 8, 5, 23 and 24 columns with 2 between them; titles may take several lines
    assert any(line.startswith("variant baseline") for line in lines) == (width < 66)


def test_running_text_takes_several_lines_before_figures_stand_below_each_other() -> None:
    rows = [("7_0", "words " * 20, "0.87 [0.83, 0.90]")]
    console = Console(width=60)
    with console.capture() as captured:
        console.print(grid(("task", "what it is", "result"), rows, 60, text=1))
    assert captured.get().count("\n") > 2 and "0.87 [0.83, 0.90]\n" in captured.get()


def test_facts_that_are_longer_than_a_line_go_on_in_the_next() -> None:
    fact = "win " + " ".join(f"agent_{number} 0.{number}7" for number in range(1, 9))
    lines = _flow([("step 40,000/100,000 (40 %)", ""), (fact, "red")], 60, indent=5)
    assert all(line.cell_len <= 60 for line in lines)
    assert " ".join(line.plain.strip() for line in lines[1:]) == fact
    assert isinstance(lines[-1], Text)


@pytest.mark.parametrize("width", [80, 100])
def test_compare_at_a_terminal(project: Path, width: int) -> None:
    """The command itself, at a terminal of this width."""
    for number, (experiment, horizon) in enumerate((("baseline", 9), ("short_horizon", 5))):
        rows = [games_of_two(0.6, 0.4), games_of_two(0.8, 0.2)]
        for seed in range(2):
            settings = {"agent.horizon": horizon}
            make_job(project, str(100 + 2 * number + seed), experiment, seed, rows, settings=settings)
    there, here = pty.openpty()
    fcntl.ioctl(here, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environ = {**os.environ, "PYTHONPATH": str(SOURCE), "TERM": "xterm"}
    environ.pop("COLUMNS", None)
    command = [sys.executable, "-m", "tdmpc_lab", "compare", "baseline", "short_horizon", "--threshold", "0.5"]
    with subprocess.Popen(command, cwd=project, env=environ, stdout=here, stdin=subprocess.DEVNULL) as process:
        os.close(here)
        shown = b""
        while part := _read(there):
            shown += part
    text = shown.decode()
    assert process.returncode == 0 and "…" not in text
    figures = text[text.index("vs weak") :].splitlines()
    assert sum("] of " in line for line in figures) >= 4
    assert all(line.count("[") - line.count("\x1b[") == line.count("]") for line in figures)  # no interval is cut


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 10_000)
    except OSError:  # the other end is closed
        return b""
