"""The whole log in one file: `notes/JOBS.md`, in the style of a hand-written one, or a page for a browser. Pure.

The first line of JOBS.md holds a hash of the rest. Where that differs, somebody has written into it, and it is not
replaced before those lines have gone into the notes. The page needs no server and no network.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

from tdmpc_lab.errors import NoteError
from tdmpc_lab.notes.curve import curves_in, svg
from tdmpc_lab.notes.entries import Entry, is_outcome, rollup_lines
from tdmpc_lab.notes.handwritten import heading_id
from tdmpc_lab.notes.note import add_bullet, add_line, has_markers, put_verdict
from tdmpc_lab.notes.verdict import is_stated, is_verdict_line, parse_verdict
from tdmpc_lab.outputs import HTML_MARK
from tdmpc_lab.text import count

_HEAD = re.compile(rb"<!-- tdmpc-lab:rollup ([0-9a-f]{16}) [^\n]*-->\r?\n")
_SHOWN = 20


@dataclass(frozen=True)
class Added:
    """Lines that a user wrote into the roll-up, below the heading of a job or of none."""

    job_id: str | None
    lines: tuple[str, ...]


class RollupEditedError(NoteError):
    """A user has written into the roll-up; `added` are their lines. Nothing was written.

    `foreign`: the tool has not written this file at all.
    """

    def __init__(self, message: str, added: Sequence[Added], *, foreign: bool = False) -> None:
        self.added = tuple(added)
        self.foreign = foreign
        super().__init__(message)


def rollup(entries: Iterable[Entry]) -> bytes:
    """The file's content for these entries, in their order."""
    body = "".join("\n" + "\n".join(rollup_lines(entry)) + "\n" for entry in entries).encode(errors="replace")
    head = (
        f'<!-- tdmpc-lab:rollup {_hash(body)} | made from the notes beside it; to add to one: tdmpc-lab note ID "…" -->'
    )
    return head.encode() + b"\n" + body


def check_unedited(name: str, now: bytes, written: bytes, fresh: bytes) -> None:
    """Return if the file is as the tool wrote it, so that it may be replaced.

    `written` is the tool's own copy of what it wrote last (empty where there is none), `fresh` what it would write
    now; they tell which lines are a user's.

    Raises RollupEditedError with these lines.
    """
    head = _HEAD.match(now)
    if not now.strip() or now == fresh or (head is not None and head[1].decode() == _hash(now[head.end() :])):
        return
    if head is None:
        raise RollupEditedError(
            f"{name} was not written by tdmpc-lab (its first line says nothing of it), so it is left alone; take it in "
            f"with: tdmpc-lab notes import {name}, and then move it away",
            (),
            foreign=True,
        )
    added = _added(now, written if _is_whole(written, head[1]) else fresh)
    said = [f"  {one.job_id or 'no job'}: {line}" for one in added for line in one.lines]
    more = [f"  and {count(len(said) - _SHOWN, 'more line')}"] if len(said) > _SHOWN else []
    what = "\n".join(["was edited, and is left alone:", *said[:_SHOWN], *more]) if said else "lost some of its lines."
    raise RollupEditedError(
        f"{name} {what}\nput these lines into the jobs' own notes and write it anew: tdmpc-lab notes --rollup --move",
        added,
    )


def move_into(note: bytes, lines: Iterable[str], name: str) -> bytes:
    """A job's note with lines that a user wrote into the roll-up. A verdict in the tool's form takes the place of
    an earlier one. Raises NoteError where the note's markers are broken."""
    for line in lines:
        if is_verdict_line(line) and is_stated(line) and has_markers(note):
            said = parse_verdict(line)
            note = put_verdict(note, said.line.strip(), name)
        elif line.startswith(("- ", "* ")):
            note = add_bullet(note, line[2:], name)
        else:
            note = add_line(note, line, name)
    return note


def _added(edited: bytes, written: bytes) -> list[Added]:
    """The lines of `edited` that are not in the same entry of `written`."""
    known = dict(_by_job(written))
    added = []
    for job_id, lines in _by_job(edited):
        left = Counter(line.rstrip() for line in known.get(job_id, []))
        own: list[str] = []
        for line in lines:
            if left[line.rstrip()] > 0:
                left[line.rstrip()] -= 1
            elif line.strip() and not is_outcome(line):
                own.append(line)
        if own:
            added.append(Added(job_id, tuple(own)))
    return added


def _by_job(content: bytes) -> list[tuple[str | None, list[str]]]:
    """The lines below each job's heading, the headings left out; entries of one job together."""
    found: dict[str | None, list[str]] = {None: []}
    lines = found[None]
    for raw in _HEAD.sub(b"", content, count=1).decode(errors="replace").split("\n"):
        line = raw.removesuffix("\r")
        job_id = heading_id(line)
        if job_id is None:
            lines.append(line)
        else:
            lines = found.setdefault(job_id, [])
    return list(found.items())


def _is_whole(copy: bytes, wanted: bytes) -> bool:
    """Whether a copy is of the roll-up with this hash, and whole."""
    head = _HEAD.match(copy)
    return head is not None and head[1] == wanted and _hash(copy[head.end() :]).encode() == wanted


def _hash(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]


_NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'  # of a file of its own; within a page it is understood
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
input { font: inherit; width: 100%; padding: .4rem .6rem; box-sizing: border-box; }
article { border-left: .3rem solid #9995; margin: 1.2rem 0; padding: .1rem 0 .1rem .9rem; }
article.good { border-color: #2a9d4a; } article.bad { border-color: #d33c3c; }
article.unclear { border-color: #d9a400; }
h2 { font-size: 1rem; margin: 0; } h2 a { color: inherit; text-decoration: none; }
h2 small { font-weight: normal; opacity: .7; }
ul { margin: .2rem 0; padding-left: 1.1rem; } p { margin: .2rem 0; } .verdict { font-weight: 600; }
svg { display: block; margin: .3rem 0; max-width: 100%; }
pre { overflow-x: auto; font-size: 12px; background: #9991; padding: .6rem; } summary { cursor: pointer; opacity: .7; }
"""
_SCRIPT = """
const box = document.querySelector("input"), all = [...document.querySelectorAll("article")];
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  for (const one of all) {
    const text = one.textContent.toLowerCase();
    one.hidden = !words.every(word => text.includes(word));
    shown += !one.hidden;
  }
  document.querySelector("#count").textContent = `${shown} of ${all.length} job${all.length === 1 ? "" : "s"}`;
});
"""


def log_page(entries: Sequence[Entry], title: str, made: datetime) -> str:
    """The entries, newest first, with a box that filters them by words; whole notes are folded away below each."""
    jobs = count(len(entries), "job")
    articles = "\n".join(_article(entry) for entry in reversed(entries))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{HTML_MARK}\n<style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n"
        f'<p><span id="count">{jobs}</span>, newest first; made {made:%Y-%m-%d %H:%M} by tdmpc-lab</p>\n'
        f'<input type="search" placeholder="words: an id, a state, bad, horizon …" aria-label="filter">\n'
        f"{articles}\n<script>{_SCRIPT}</script></body></html>\n"
    )


def _article(entry: Entry) -> str:
    judgement = "" if entry.verdict is None else entry.verdict.judgement
    heading, *lines = rollup_lines(entry)
    facts = [heading.lstrip("# ").removeprefix(entry.id).strip(" -"), entry.experiment, entry.state, judgement]
    small = escape(" · ".join(_plain(fact) for fact in dict.fromkeys(facts) if fact))
    note = _plain("\n".join(line for line in entry.text.split("\n") if not line.startswith("<!-- tdmpc-lab:")).strip())
    return (
        f'<article class="{judgement}" id="{entry.id}">'
        f'<h2><a href="#{entry.id}">{entry.id}</a> <small>{small}</small></h2>\n'
        f"{_lines(lines)}\n{_plot(entry)}"
        f"<details><summary>the whole note</summary><pre>{escape(note)}</pre></details></article>"
    )


def _plot(entry: Entry) -> str:
    """The curve of its evaluations, drawn into the page itself; nothing for a job with less than two."""
    curves = [curve for curve in curves_in(entry.text) if len(curve.values) > 1]
    if not curves:
        return ""
    return svg(curves, f"{entry.id}: {' and '.join(curve.name for curve in curves)}").replace(_NAMESPACE, "", 1)


def _lines(lines: Sequence[str]) -> str:
    """Items as a list, all else as paragraphs."""
    parts: list[str] = []
    listed = False
    for line in lines:
        item = line.startswith(("- ", "* "))
        if item != listed:
            parts.append("<ul>" if item else "</ul>")
            listed = item
        kind = ' class="verdict"' if is_verdict_line(line) else ""
        text = escape(_plain(line[2:] if item else line))
        parts.append(f"<li>{text}</li>" if item else f"<p{kind}>{text}</p>")
    return "".join(parts) + ("</ul>" if listed else "")


def _plain(text: str) -> str:
    """Without the control characters that no page may hold."""
    return "".join(char for char in text if char.isprintable() or char in "\n\t")
