"""`compare`: jobs' curves and figures side by side; `--html` puts notes and videos beside them."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc_lab.app.queue.status import job_views
from tdmpc_lab.app.submit.code import code_remarks
from tdmpc_lab.config.fieldtypes import spec_types
from tdmpc_lab.config.loader import load_resolved
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.config.serialize import to_dict
from tdmpc_lab.config.validation import unknown_key_hint
from tdmpc_lab.errors import NoteError, RecordError, SpecError, UsageError
from tdmpc_lab.files import read_whole, write_atomic
from tdmpc_lab.jobs.find import FORMS, Job, select_jobs, what_there_is
from tdmpc_lab.jobs.ids import array_of
from tdmpc_lab.jobs.metrics import eval_rows
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.notes.entries import read_entry
from tdmpc_lab.sharing import own_umask_outside
from tdmpc_lab.yaml_strict import read_yaml

if TYPE_CHECKING:
    from tdmpc_lab.report.comparison import Comparison
    from tdmpc_lab.report.page import JobNote, Video
    from tdmpc_lab.report.runs import Run
    from tdmpc_lab.report.variants import By


def compare_jobs(
    project: Project,
    words: Sequence[str],
    *,
    metric: str | None = None,
    lower: bool = False,
    threshold: float | None = None,
    over: Sequence[str] = (),
    by: By = "config",
    until: int | None = None,
    reference: str | None = None,
    alone: bool = False,
) -> Comparison:
    """Compare the jobs that the words mean; see `select_jobs` and `report.comparison.compare`.

    Raises:
        UsageError: a word means nothing, there is one variant only (unless `alone`), or an option fits no job.
        SpecError: a spec file that was named can't be read.
        RecordError: the record of a job that was named can't be read.
    """
    from tdmpc_lab.report.comparison import compare

    if not words:
        raise UsageError(f"say what to compare: {FORMS}; {what_there_is(project)}")
    for key in over:
        _check_key(key)
    jobs = select_jobs(project, words)
    runs, unread = _runs(project, jobs)
    if not runs:
        raise UsageError(f"none of these jobs can be read: {'; '.join(unread)}")
    found = compare(
        runs, metric=metric, lower=lower, threshold=threshold, over=over, by=by, until=until, reference=reference
    )
    if len(found.summaries) == 1 and not alone:
        raise UsageError(_one_only(project, found))
    if not any(one.figures for one in found.summaries):
        raise UsageError("there is nothing to compare yet:\n" + "\n".join(f"  {line}" for line in found.remarks))
    return replace(found, remarks=(*code_remarks(project, found), *found.remarks, *unread))


def _check_key(key: str) -> None:
    path = tuple(key.split("."))
    for length in range(1, len(path) + 1):
        kind = spec_types().get(path[:length])
        if kind is None:
            raise UsageError(f"--over {key}: unknown key; {unknown_key_hint(path[:length])}")
        if kind.takes(dict) and not kind.section:
            return


def _runs(project: Project, jobs: Sequence[Job]) -> tuple[list[Run], list[str]]:
    """The jobs with their evaluations, and what is wrong with those that can't be read."""
    from tdmpc_lab.report.runs import Run

    configs: dict[str, tuple[Spec | None, dict[str, Any]]] = {}
    statuses = {view.id: view for view in job_views(project, [paths.id for paths, _ in jobs])}
    runs, unread = [], []
    for paths, record in jobs:
        view = statuses[paths.id]
        try:
            if record.group not in configs:  # the jobs of a group have one config but for what is not compared
                configs[record.group] = _config(paths)
            spec, config = configs[record.group]
            rows = tuple(eval_rows(paths))
        except (OSError, RecordError, SpecError) as error:
            unread.append(f"{record.experiment}: {paths.id} can't be read and is left out: {error}")
            continue
        status = view.status
        runs.append(
            Run(
                record=record,
                state="UNKNOWN" if status is None else status.state.value,
                cause=(view.problem if status is None else status.cause) or "",
                step=None if status is None else status.step,
                node=None if status is None else status.node,
                spec=spec,
                config=config,
                rows=rows,
            )
        )
    return runs, unread


def _config(paths: JobPaths) -> tuple[Spec | None, dict[str, Any]]:
    """What the job ran; as plain values only where another version of the tool wrote what this one does not know."""
    try:
        spec = load_resolved(paths.resolved)
    except SpecError:
        data = read_yaml(read_whole(paths.resolved), str(paths.resolved)).data
        return None, _with_sections_off(data) if isinstance(data, dict) else {}
    return spec, to_dict(spec)


def _with_sections_off(data: dict[str, Any]) -> dict[str, Any]:
    """Sections that a file calls `off` as the tool's plain values have them."""
    for path, kind in spec_types().items():
        inside: Any = data
        for part in path[:-1]:
            inside = inside.get(part) if isinstance(inside, dict) else None
        if kind.section and isinstance(inside, dict) and inside.get(path[-1]) is False:
            inside[path[-1]] = None
    return data


def _one_only(project: Project, found: Comparison) -> str:
    one = found.summaries[0]
    runs = one.variant.runs
    wanted = next((run.record.compare_to for run in runs if run.record.compare_to), None)
    what = f"these {len(runs)} jobs are" if len(runs) > 1 else f"job {runs[0].id} is"
    hint = f" (its spec says compare_to: {wanted})" if wanted else ""
    return (
        f"{what} one variant, {one.name}: name another one to compare it with{hint}, or show it by itself with "
        f"--alone; with --by job or --by code its runs are compared among themselves; {what_there_is(project)}"
    )


MOST_EMBEDDED = 4 << 20
"""Bytes of a video that becomes part of the page; a larger one is linked."""
_MOST_EMBEDDED_IN_ALL = 24 << 20


def write_page(project: Project, path: Path, found: Comparison, command: str) -> None:
    """Write the page. Raises OSError."""
    from tdmpc_lab.report.page import comparison_page
    from tdmpc_lab.report.plots import curves_svg

    notes, videos = list(_notes(project, found)), list(_videos(project, path, found))
    page = comparison_page(found, curves_svg(found), notes, videos, datetime.now(), command)
    with own_umask_outside(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, page.encode(errors="replace"))


def _notes(project: Project, found: Comparison) -> Iterator[JobNote]:
    """The verdict and a user's words of every job, and of every job array; nothing of those without."""
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
