"""The job log as one HTML page that needs nothing else: no server, no network. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

from tdmpc_lab.notes.curve import curves_in, svg
from tdmpc_lab.notes.entries import Entry, rollup_lines
from tdmpc_lab.notes.verdict import is_verdict_line
from tdmpc_lab.outputs import HTML_MARK
from tdmpc_lab.text import count

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
