"""Pictures, pages and videos that the tool writes where its user wants them: how they are known again.

They may lie anywhere in the project, under any name, and are no code of it: a job that is submitted after one was drawn
runs the same code as before. Each therefore carries a mark in the place that its format has for that. Standard library
only.
"""

from __future__ import annotations

import os
from pathlib import Path

MADE_BY = "made by tdmpc-lab"
HTML_MARK = f'<meta name="generator" content="{MADE_BY}">'

_ENDINGS = (".png", ".svg", ".pdf", ".html", ".htm", ".mp4", ".gif")
_LOOKED_AT = 8192  # bytes at the beginning and at the end, where the formats have it
_GIF_END = b";"


def picture_metadata(ending: str) -> dict[str, str | None]:
    """What matplotlib is to write into a picture (`.png`, `.svg`, `.pdf`) beside the drawing: the mark, and no date, so
    that the same picture is the same bytes."""
    known: dict[str, dict[str, str | None]] = {
        ".png": {"Software": MADE_BY},
        ".svg": {"Creator": MADE_BY, "Date": None},
        ".pdf": {"Creator": MADE_BY, "CreationDate": None},
    }
    return known[ending]


def mark_gif(path: Path) -> None:
    """Put the mark into a GIF, as a comment before its end. Raises OSError."""
    with path.open("r+b") as file:
        end = file.seek(-len(_GIF_END), os.SEEK_END)
        if file.read() == _GIF_END:
            file.seek(end)
            file.write(b"!\xfe" + bytes([len(MADE_BY)]) + MADE_BY.encode() + b"\0" + _GIF_END)


def is_output(path: Path) -> bool:
    """Whether the tool wrote this file; False for one that can't be read."""
    if path.suffix.lower() not in _ENDINGS:
        return False
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            ends = []
            for start in (0, max(0, size - _LOOKED_AT)):
                file.seek(start)
                ends.append(file.read(_LOOKED_AT))
    except OSError:
        return False
    return any(MADE_BY.encode() in part for part in ends)
