"""`compare --html`: what persons wrote of the jobs, and their videos, put beside the figures."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tdmpc_lab.errors import NoteError
from tdmpc_lab.files import write_atomic
from tdmpc_lab.jobs.ids import array_of
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.notes.entries import read_entry
from tdmpc_lab.sharing import own_umask_outside

if TYPE_CHECKING:
    from tdmpc_lab.report.comparison import Comparison
    from tdmpc_lab.report.page import JobNote, Video

MOST_EMBEDDED = 4 << 20
"""Bytes of a video that becomes part of the page; a larger one is linked."""
_MOST_EMBEDDED_IN_ALL = 24 << 20


def write_page(project: Project, path: Path, found: Comparison, command: str) -> None:
    """Write the page. Raises OSError."""
    from tdmpc_lab.report.curves_plot import curves_svg
    from tdmpc_lab.report.page import comparison_page

    notes, videos = list(_notes(project, found)), list(_videos(project, path, found))
    page = comparison_page(found, curves_svg(found), notes, videos, datetime.now(), command)
    with own_umask_outside(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, page.encode(errors="replace"))


def _notes(project: Project, found: Comparison) -> Iterator[JobNote]:
    """The verdict and a person's words of every job, and of every job array; nothing of those without."""
    from tdmpc_lab.report.page import JobNote

    ids: dict[str, None] = {}
    for run in found.runs:
        if (array := array_of(run.id)) is not None:
            ids[array[0]] = None
        ids[run.id] = None
    for job_id in ids:
        with contextlib.suppress(NoteError):  # no note yet, or one that `notes` names as damaged
            entry = read_entry(project.note(job_id))
            verdict = entry.verdict
            line = "" if verdict is None else verdict.line
            words = tuple(word for word in entry.words if word.strip() != line.strip())
            if verdict is not None or words:
                yield JobNote(job_id, words, line.strip(), "" if verdict is None else verdict.judgement)


def _videos(project: Project, page: Path, found: Comparison) -> Iterator[Video]:
    """The newest video of each variant's best run that has one."""
    from tdmpc_lab.report.page import Video

    left = _MOST_EMBEDDED_IN_ALL
    for one in found.summaries:
        best = sorted(one.figures, key=lambda figures: figures.final, reverse=not found.metric.lower)
        films = ((figures.run.id, film) for figures in best if (film := _newest(project, figures.run.id)) is not None)
        for job_id, film in films:
            with contextlib.suppress(OSError):  # removed meanwhile
                size = film.stat().st_size
                source = os.path.relpath(film, page.absolute().parent)
                if size <= min(MOST_EMBEDDED, left):
                    source = "data:video/mp4;base64," + base64.b64encode(film.read_bytes()).decode()
                    left -= size
                yield Video(f"{one.name}: {job_id}, {film.stem}", source)
            break


def _newest(project: Project, job_id: str) -> Path | None:
    return max(project.job(job_id).videos.glob("*.mp4"), default=None, key=lambda film: film.name)
