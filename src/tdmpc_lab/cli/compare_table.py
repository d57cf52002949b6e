"""A comparison on the terminal, drawn with rich."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text

from tdmpc_lab.cli.grid import print_grid
from tdmpc_lab.cli.tables import WIDTH_OF_A_FILE
from tdmpc_lab.report.comparison import Comparison
from tdmpc_lab.report.tables import Table, differences_table, figures_table, headline, pair_line

_JUDGED = {"better": "green", "worse": "red", "too few seeds to tell": "yellow"}


def print_comparison(found: Comparison) -> None:
    """Figures, differences in config, who is better, and what has to be known to read that."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)
    console.print(Text(headline(found)), soft_wrap=True)
    console.print()
    _print(console, figures_table(found))
    if found.differences:
        console.print()
        _print(console, differences_table(found))
    elif len(found.summaries) > 1:
        console.print("\ntheir configs are the same", highlight=False)
    if found.pairs:
        console.print()
    for pair in found.pairs:
        console.print(Text(pair_line(pair), _JUDGED.get(pair.judgement, "")), soft_wrap=True)
    if found.remarks:
        console.print()
    for line in found.remarks:
        console.print(Text(line, "bold yellow" if line.startswith("warning") else ""), soft_wrap=True)


def _print(console: Console, table: Table) -> None:
    print_grid(console, table.titles, table.rows)
