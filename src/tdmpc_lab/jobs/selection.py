"""Jobs by a person's words for them: experiments, families and patterns of names, groups, ids, spec files."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from tdmpc_lab.errors import RecordError, UsageError
from tdmpc_lab.jobs.ids import expand_tasks, is_job_id
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, all_records

Job = tuple[JobPaths, JobRecord]
_GROUP = re.compile(r"[0-9a-f]{6,64}")  # of a group's hash at least the first six digits
_ENDS_A_FAMILY = ("_", "-", ".")
_MOST_LISTED = 12

FORMS = "an experiment's name (or a pattern, 'back*'), a spec file, a group, a job's or an array's id, or `last`"
"""What a word may be."""


def select_jobs(project: Project, words: Sequence[str]) -> list[Job]:
    """The jobs that the words mean, each once, in the words' order; those of one word by submit time.

    A word that is no experiment's name means the family of those that begin with it: `hockey` means `hockey_small`.
    A job of an experiment whose record can't be read is none that could be told to belong to it.

    Raises:
        UsageError: a word means no job; the message says what there is.
        SpecError: a spec file can't be read.
        RecordError: the record of a job that was named by its id can't be read.
    """
    records = all_records(project)
    chosen: dict[str, Job] = {}
    for word in words:
        for job in _meant(project, word, records):
            chosen.setdefault(job[0].id, job)
    return list(chosen.values())


def what_there_is(project: Project) -> str:
    """The experiments with their number of jobs, for a message."""
    return _listed(all_records(project))


def _meant(project: Project, word: str, records: Sequence[tuple[JobPaths, JobRecord | RecordError]]) -> list[Job]:
    known = [(paths, record) for paths, record in records if isinstance(record, JobRecord)]
    names = {record.experiment for _, record in known}
    if word == "last":
        if not records:
            raise UsageError("there are no jobs yet")
        return [_readable(*records[-1])]
    if word.endswith((".yaml", ".yml")):
        name = _name_in(project, word)
        if name not in names:
            raise UsageError(f"{word}: experiment {name} has no jobs yet; submit it first: tdmpc-lab submit {word}")
        return [job for job in known if job[1].experiment == name]
    if word in names:
        return [job for job in known if job[1].experiment == word]
    by_id = {paths.id: record for paths, record in records}
    try:
        if is_job_id(word) or expand_tasks(word):
            return [_readable(paths, by_id[paths.id]) for paths in project.require_jobs([word])]
    except UsageError:
        if not any(_is_of(record, word, names) for _, record in known):  # a group's hash may be all digits
            raise
    if found := [job for job in known if _is_of(job[1], word, names)]:
        return found
    try:
        return [_readable(paths, by_id[paths.id]) for paths in project.require_jobs([word])]  # part of an id
    except UsageError as error:
        if " fits " in str(error):
            raise
        near = difflib.get_close_matches(word, names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"{word!r} is no experiment, group or job here; {hint}{_listed(records)}. A word is {FORMS}"
        ) from None


def _is_of(record: JobRecord, word: str, names: set[str]) -> bool:
    """Whether a word that is nobody's name means this job all the same: by a pattern, its group, or its family."""
    if any(char in word for char in "*?["):
        return fnmatchcase(record.experiment, word)
    family = tuple(f"{word}{end}" for end in _ENDS_A_FAMILY)
    if any(name.startswith(family) for name in names):
        return record.experiment.startswith(family)
    return _GROUP.fullmatch(word) is not None and record.group.startswith(word)


def _name_in(project: Project, word: str) -> str:
    from tdmpc_lab.config.loader import load_spec  # pydantic and yaml, which other words do without

    path = Path(word)
    if not path.is_absolute() and not path.exists():
        path = next((p for p in (project.root / word, project.experiments / word) if p.exists()), path)
    return load_spec(path).spec.name


def _readable(paths: JobPaths, record: JobRecord | RecordError) -> Job:
    if isinstance(record, RecordError):
        raise record
    return paths, record


def _listed(records: Sequence[tuple[JobPaths, JobRecord | RecordError]]) -> str:
    counts = Counter(record.experiment for _, record in reversed(records) if isinstance(record, JobRecord))
    closed = [record for _, record in records if isinstance(record, RecordError)]
    if not counts:
        return f"none of {len(closed)} jobs can be read: {closed[0]}" if closed else "there are no jobs yet"
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:_MOST_LISTED]]
    more = f", and {len(counts) - len(shown)} more" if len(counts) > len(shown) else ""
    return f"experiments with jobs, newest first: {', '.join(shown)}{more}"
