"""The commands that README and docs show, as a reader would type them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"^(?:\$ )?((?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?tdmpc-lab .*)$", re.MULTILINE)
_SPAN = re.compile(r"`((?:\.venv/bin/)?tdmpc-lab [^`]+)`")
_SHELL = ("|", ">", ">>", "<", "&&", ";")


class Shown(NamedTuple):
    """A command of a page."""

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        """What the program is called with: without the shell's part, comments, and dots for what is left out."""
        words = shlex.split(self.text, comments=True)
        words = words[next(place for place, word in enumerate(words) if word.endswith("tdmpc-lab")) + 1 :]
        end = next((place for place, word in enumerate(words) if word in _SHELL), len(words))
        words = words[:end]
        if words[1:2] == ["…"]:
            words[1] = "SPEC"
        return [word for word in words if word != "…"]


def shown_commands() -> list[Shown]:
    """Every command with arguments once, in the order of the pages."""
    return list(_found())


def _found() -> Iterator[Shown]:
    seen: set[str] = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fences = _FENCE.findall(text)
        in_fences = [found for fence in fences for found in _LINE.findall(fence)]
        in_text = [" ".join(found.split()) for found in _SPAN.findall(_FENCE.sub("", text))]
        for found in [*in_fences, *in_text]:
            if found not in seen and " " in found.partition("tdmpc-lab ")[2]:  # else it only names the command
                seen.add(found)
                yield Shown(page.name, found)
