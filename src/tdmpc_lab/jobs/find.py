"""Which jobs there are, and which of them a word means: ids and parts of them, experiments, patterns, groups."""

from __future__ import annotations

import difflib
import functools
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from tdmpc_lab.errors import NoJobError, RecordError, UsageError
from tdmpc_lab.jobs.ids import ID_HELP, expand_tasks, is_job_id, is_local_id, is_slurm_id, natural_key
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, read_record

_SHORTHAND_LENGTH = 4  # shorter than this is a slip of the keyboard, not a choice
_SHOWN = 3
Job = tuple[JobPaths, JobRecord]
_GROUP = re.compile(r"[0-9a-f]{6,64}")  # of a group's hash at least the first six digits
_ENDS_A_FAMILY = ("_", "-", ".")
_MOST_LISTED = 12

FORMS = "an experiment's name (or a pattern, 'back*'), a spec file, a group, a job's or an array's id, or `last`"
"""What a word may be."""


class AmbiguousJobError(UsageError):
    """A part of an id fits several jobs."""


def all_records(project: Project) -> list[tuple[JobPaths, JobRecord | RecordError]]:
    """Every job of the project with its record, or with the reason why that can't be read; each is read once.

    By submit time, then id; a job whose record can't be read stands at the time its record was written. Folders
    that are no job, or not yet, are left out.
    """
    found: list[tuple[float, tuple[int, ...], JobPaths, JobRecord | RecordError]] = []
    jobs = project.jobs
    for job_id in folder_names(project):
        paths = JobPaths(jobs / job_id)
        try:
            record: JobRecord | RecordError = read_record(paths)
            moment = max(0.0, record.submitted.timestamp()) if isinstance(record, JobRecord) else 0.0
        except RecordError as error:
            try:
                record, moment = error, paths.record.stat().st_mtime
            except PermissionError:  # a job of somebody who does not share it: to leave it out would say there is none
                record, moment = error, paths.folder.stat().st_mtime
            except OSError:  # no job, or not yet
                continue
        found.append((moment, natural_key(job_id), paths, record))
    return [(paths, record) for _, _, paths, record in sorted(found, key=lambda job: job[:2])]


def peek(raw: bytes, key: str) -> str | None:
    """A text of a record as it is on file, not parsed, for there may be thousands; None where it has none."""
    found = _text_of(key).search(raw)
    try:
        return None if found is None else str(json.loads(found[1]))
    except ValueError:
        return None


@functools.cache
def _text_of(key: str) -> re.Pattern[bytes]:
    return re.compile(rf'^  "{key}": ("(?:[^"\\]|\\.)*")'.encode(), re.MULTILINE)


def job_ids(project: Project) -> list[str]:
    """The ids of all jobs, by submit time, then id. Folders that are no job, or not yet, are left out.

    A job whose record can't be read is listed too, at the time its record was written.
    """
    return [paths.id for paths, _ in all_records(project)]


def is_recorded(project: Project, job_id: str) -> bool:
    """Whether there is a job of this id; also one that is not this user's to read. Raises UsageError for no id."""
    try:
        project.job(job_id).record.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def folder_names(project: Project) -> list[str]:
    """The names of all folders that may be jobs, in no order."""
    try:
        return [entry.name for entry in os.scandir(project.jobs) if is_job_id(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def raw_records(project: Project) -> Iterator[tuple[str, bytes]]:
    """The ids of all jobs with their records as they are on file, in no order: to look something up in
    thousands of them. Raises OSError when one can't be read.
    """
    for name in folder_names(project):
        try:
            yield name, project.job(name).record.read_bytes()
        except (FileNotFoundError, NotADirectoryError):  # no job, or not yet
            continue


def require_job(project: Project, text: str) -> JobPaths:
    """The job with this id, or the only local job whose id begins or ends with `text`.

    The shorthand (`local-20260203-09`, `091422-123`) takes at least four characters, and never a text
    that is itself an id: a mistyped SLURM id must not reach another job.
    Raises UsageError, naming the nearest and the newest jobs, when there is no such job: NoJobError for what is an
    id, which may be that of an array, or of a job that has left a note alone.
    """
    if is_job_id(text):
        if is_recorded(project, text):
            return project.job(text)
        known = _known_otherwise(project, text)
        raise NoJobError(known or f"no job {text} in {project.jobs}; {_suggest(text, job_ids(project))}", text)
    if tasks := expand_tasks(text):
        raise UsageError(f"{text} means {len(tasks)} tasks of a job array: name one, as {tasks[0]}")
    ids = job_ids(project)
    matches = _shorthand(text, ids)
    if not matches:
        raise UsageError(f"{text!r} is no job id: {ID_HELP}; {_suggest(text, ids)}")
    if len(matches) > 1:
        raise AmbiguousJobError(f"{text!r} fits {len(matches)} jobs: {_newest(matches)}; write one id in full")
    return project.job(matches[0])


def _known_otherwise(project: Project, job_id: str) -> str:
    """What is known of an id that has no record; empty for nothing."""
    if tasks := tasks_of(project, job_id):
        shown = ", ".join(tasks[:_SHOWN]) + (", …" if len(tasks) > _SHOWN else "")
        return f"{job_id} is a job array, and each of its {len(tasks)} tasks is a job: name one of {shown}"
    if project.note(job_id).is_file():
        return (
            f"of {job_id} there is only a note (tdmpc-lab show {job_id}), and no folder {project.job(job_id).folder}: "
            "it came from a hand-written log, or its folder was removed. Its config, logs and checkpoints are "
            "not there"
        )
    return ""


def jobs_like(project: Project, text: str) -> list[str]:
    """The local jobs that a shorthand as `require_job` takes it may mean."""
    return _shorthand(text, job_ids(project))


def require_jobs(project: Project, texts: Sequence[str]) -> list[JobPaths]:
    """The jobs meant, each once: an array's id, and `7_[0-2]` as squeue writes it, mean its tasks.

    Raises UsageError like `require_job`, and where a list of tasks names one that does not exist.
    """
    found: dict[str, JobPaths] = {}
    for text in texts:
        listed = tasks_of(project, text) if is_job_id(text) else expand_tasks(text)
        for job_id in listed or [text]:
            paths = require_job(project, job_id)
            found[paths.id] = paths
    return list(found.values())


def tasks_of(project: Project, array_id: str) -> list[str]:
    """The recorded tasks of a job array of this project in their order; none where it is no array's id."""
    if not is_slurm_id(array_id) or "_" in array_id:
        return []
    names = [name for name in folder_names(project) if name.startswith(f"{array_id}_")]
    return sorted((name for name in names if is_recorded(project, name)), key=natural_key)


def _shorthand(text: str, ids: list[str]) -> list[str]:
    if len(text) < _SHORTHAND_LENGTH:
        return []
    return [i for i in ids if is_local_id(i) and (i.startswith(text) or i.endswith(text))]


def _suggest(text: str, ids: list[str]) -> str:
    if not ids:
        return "there are no jobs yet"
    near = difflib.get_close_matches(text, ids, n=1, cutoff=0.75)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}the newest are {_newest(ids)}"


def _newest(ids: list[str]) -> str:
    return ", ".join(reversed(ids[-_SHOWN:]))


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
            return [_readable(paths, by_id[paths.id]) for paths in require_jobs(project, [word])]
    except UsageError:
        if not any(_is_of(record, word, names) for _, record in known):  # a group's hash may be all digits
            raise
    if found := [job for job in known if _is_of(job[1], word, names)]:
        return found
    try:
        return [_readable(paths, by_id[paths.id]) for paths in require_jobs(project, [word])]  # part of an id
    except AmbiguousJobError:
        raise
    except UsageError:
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
