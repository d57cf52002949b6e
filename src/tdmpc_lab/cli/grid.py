"""Tables whose figures are never cut: where the columns do not fit beside each other, they stand below each other."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

_GAP = 2  # columns between two of a table
_LEAST_TEXT = 24  # columns that the one with running text needs to be readable

Cells = Sequence[Text | str]


def print_grid(
    console: Console, titles: Sequence[str], rows: Sequence[Cells], *, left: int = 1, text: int | None = None
) -> None:
    """Print a table; see `grid`."""
    console.print(grid(titles, rows, console.width, left=left, text=text))


def grid(
    titles: Sequence[str], rows: Sequence[Cells], width: int, *, left: int = 1, text: int | None = None
) -> RenderableType:
    """A table in `width` columns, or, where that is too narrow for it, every row as a heading with a line for each of
    its other cells.

    The first `left` columns stand left, the others right. `text` is the number of the column whose cells may take
    several lines; titles may where there is no room for them on one.
    """
    sizes = _fitting(titles, rows, width, text)
    if sizes is None:
        return _blocks(titles, rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, (title, size) in enumerate(zip(titles, sizes, strict=True)):
        stands_left = number < left or number == text
        table.add_column(title, justify="left" if stands_left else "right", width=None if number == text else size)
    for row in rows:
        table.add_row(*map(_styled, row))
    return table


def fits(titles: Sequence[str], rows: Sequence[Cells], width: int, text: int | None = None) -> bool:
    """Whether a table can be shown in `width` columns."""
    return _fitting(titles, rows, width, text) is not None


def _fitting(titles: Sequence[str], rows: Sequence[Cells], width: int, text: int | None) -> list[int] | None:
    """The widths of the columns so that each takes its longest cell and its title, or the title's longest word; None
    where that is more than there is."""
    for least in (map(cell_len, titles), (max(map(cell_len, title.split()), default=0) for title in titles)):
        sizes = [max([size, *(_styled(row[n]).cell_len for row in rows)]) for n, size in enumerate(least)]
        taken = sum(min(size, _LEAST_TEXT) if n == text else size for n, size in enumerate(sizes))
        if taken + _GAP * (len(sizes) - 1) <= width:
            return sizes
    return None


def _blocks(titles: Sequence[str], rows: Sequence[Cells]) -> RenderableType:
    width = max(map(cell_len, titles[1:]), default=0)
    lines: list[Text] = []
    for row in rows:
        lines.append(Text(f"{titles[0]} ", "bold").append_text(_styled(row[0])))
        for title, cell in zip(titles[1:], row[1:], strict=True):
            if value := _styled(cell):
                lines.append(Text(f"  {title}{' ' * (width - cell_len(title))}  ").append_text(value))
    return Group(*lines)


def _styled(cell: Text | str) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)
