"""A comparison as one HTML page that needs nothing else: no server, no network, no other file. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

from tdmpc_lab.outputs import HTML_MARK
from tdmpc_lab.report.comparison import Comparison
from tdmpc_lab.report.tables import Table, differences_table, figures_table, headline, pair_line, value_text

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 84rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
.made, .how { color: #555; font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th { border-bottom: 2px solid #888; }
.runs td:last-child { white-space: normal; font-size: .8rem; }
svg { max-width: 100%; height: auto; } video { max-width: 22rem; display: block; }
figure { margin: 0; } figcaption { font-size: .9rem; } .videos { display: flex; flex-wrap: wrap; gap: 1.2rem; }
ul { padding-left: 1.2rem; margin: .3rem 0; } .warning { font-weight: 600; }
article { border-left: .3rem solid #bbb; margin: .8rem 0; padding: .1rem 0 .1rem .8rem; }
article.good { border-color: #2a9d4a; } article.bad { border-color: #d33c3c; }
article.unclear { border-color: #d9a400; }
article p { margin: 0; white-space: pre-wrap; } .verdict { font-weight: 600; }
@media print { body { max-width: none; } }
"""


@dataclass(frozen=True)
class JobNote:
    """What a user has written of a job."""

    job: str
    lines: tuple[str, ...]
    verdict: str = ""
    """The line that judges it."""
    judgement: str = ""
    """good, bad or unclear."""


@dataclass(frozen=True)
class Video:
    """A film of an episode."""

    caption: str
    source: str
    """A data URI, or the address of a file."""


def comparison_page(
    c: Comparison, svg: str, notes: Sequence[JobNote], videos: Sequence[Video], made: datetime, command: str
) -> str:
    """The page: question, figures, differences, curves (`svg`), who is better, videos, verdicts and notes, remarks."""
    experiments = list(dict.fromkeys(run.record.experiment for run in c.runs))
    title = " and ".join(one.name for one in c.summaries[:3]) + (" and others" if len(c.summaries) > 3 else "")
    if len(experiments) == 1 and len(c.summaries) > 1:  # then the variants' names are what tells them apart
        title = f"{experiments[0]}: {title}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="made">{_text(command)} · made {made:%Y-%m-%d %H:%M} by tdmpc-lab</p>',
        _questions(c),
        _section("Figures", f'<p class="how">{_text(headline(c))}</p>{_table(figures_table(c))}'),
        _section("Learning curves", f"<figure>{svg}</figure>"),
        _section("Who is better", _items([pair_line(pair) for pair in c.pairs])),
        _section("What differs", _table(differences_table(c)) if c.differences else _same(c)),
        _section("What to know of the figures", _items(c.remarks)),
        _section("Videos", _videos(videos)),
        _section("Verdicts and notes", "".join(map(_note, notes))),
        _section("Runs", f'<div class="runs">{_table(_runs(c))}</div>'),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)} compared</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{HTML_MARK}\n<style>{_STYLE}</style></head>\n"
        f"<body>\n{chr(10).join(filter(None, parts))}\n</body></html>\n"
    )


def _questions(c: Comparison) -> str:
    """What each variant is, and what it was to tell."""
    lines = []
    for one in c.summaries:
        record = one.variant.runs[0].record
        what = f": {_text(record.about)}" if record.about else ""
        why = f" — <em>{_text(record.why)}</em>" if record.why else ""
        lines.append(f"<li><strong>{_text(one.name)}</strong>{what}{why}</li>")
    return f"<ul>{''.join(lines)}</ul>"


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>\n{content}" if content else ""


def _same(c: Comparison) -> str:
    return "<p>Their configs are the same.</p>" if len(c.summaries) > 1 else ""


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(title)}</th>" for title in table.titles)
    rows = "\n".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'


def _runs(c: Comparison) -> Table:
    rows = []
    for one in c.summaries:
        figures = {found.run.id: found for found in one.figures}
        for run in one.variant.runs:
            found = figures.get(run.id)
            values = () if found is None else (found.final, found.best, found.area)
            texts = [value_text(value, c.metric) for value in values] or ["–"] * 3
            code = run.record.code
            rows.append((one.name, run.id, str(run.record.seed), run.state, f"{run.step or 0:,}", *texts, code))
    return Table(("variant", "job", "seed", "state", "steps", "final", "best", "mean", "code"), tuple(rows))


def _items(lines: Sequence[str]) -> str:
    marked = (f"<li{' class=warning' if line.startswith('warning') else ''}>{_text(line)}</li>" for line in lines)
    return f"<ul>{''.join(marked)}</ul>" if lines else ""


def _videos(videos: Sequence[Video]) -> str:
    shown = "".join(
        f'<figure><video controls loop muted preload="metadata" src="{escape(video.source)}"></video>'
        f"<figcaption>{_text(video.caption)}</figcaption></figure>"
        for video in videos
    )
    return f'<div class="videos">{shown}</div>' if shown else ""


def _note(note: JobNote) -> str:
    verdict = f'<p class="verdict">{_text(note.verdict)}</p>' if note.verdict else ""
    words = f"<p>{_text(chr(10).join(note.lines))}</p>" if note.lines else ""
    return f'<article class="{escape(note.judgement)}"><p>{_text(note.job)}</p>{verdict}{words}</article>'


def _text(text: str) -> str:
    """Escaped, without the control characters that no page may hold."""
    return escape("".join(char for char in text if char.isprintable() or char in "\n\t"))
