"""`job.json`: what was known when the job was submitted. Written once, never changed.

Also here: making a job folder so that nobody ever sees half a job.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tdmpc_lab.errors import RecordError
from tdmpc_lab.files import read_whole, write_atomic
from tdmpc_lab.jobs.ids import new_local_id
from tdmpc_lab.jobs.paths import RECORD, JobPaths, Project
from tdmpc_lab.sharing import make_folder, reason
from tdmpc_lab.text import parse_time

NO_SNAPSHOT = "--no-snapshot"
"""`live_code` of a job whose submit was told to run the project's own files."""


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """One job as submitted."""

    id: str
    """The job id, which is the folder's name too."""
    array_id: str | None = None
    """Id of the whole array, for a task of one."""
    array_task: int | None = None
    """Number of the task in its array."""
    experiment: str
    """Name of the experiment."""
    env_id: str = ""
    """Id of the environment."""
    about: str = ""
    """One line: what this job is."""
    why: str = ""
    """The question this job answers."""
    group: str
    """Hash of everything that changes what is learned, except the seed."""
    variant: str | None = None
    """Name of its variant where it continues from a job or repeats one: that job's, with what was changed. None: it is
    told from the record's own differences."""
    seed: int
    """Seed of the training."""
    overrides: tuple[str, ...] = ()
    """`key=value` as given on the command line or by the sweep."""
    compare_to: str | None = None
    """Experiment or job that `diff` is taken against."""
    diff: tuple[str, ...] = ()
    """Differences in words: `agent.horizon 18 → 9`."""
    code_against: str | None = None
    """Job whose code `code_changes` is taken against: the newest that `compare_to` means, or the `parent`; None
    without one, and where the two can't be compared."""
    code_changes: tuple[str, ...] = ()
    """Files that differ from the code of that job: `M src/train.py`, with A of a new one and D of one that is gone."""
    git_commit: str | None = None
    """Commit the code was at; None outside a repository."""
    git_dirty: bool | None = None
    """Whether the code differed from that commit; None when not known."""
    snapshot: str | None = None
    """The code that the job runs: name of its folder in jobs/.snapshots; None when it runs the project's own files."""
    live_code: str | None = None
    """Why the job runs the project's files as they are at its start; None with a snapshot."""
    left_out: tuple[str, ...] = ()
    """Files that are not in the snapshot, each with why; the job sees the project's own instead."""
    package: str | None = None
    """Version of tdmpc_lab where it is not part of the snapshot: the job runs the installed one."""
    config_hash: str | None = None
    """Hash of the whole config, the seed included; names and resources do not count."""
    cluster: str
    """`local`, `slurm` or `debug`."""
    resources: dict[str, Any] = field(default_factory=dict)
    """What was asked for: `{"gpus": 1, "memory": "16G"}`."""
    command: tuple[str, ...] = ()
    """The command line of the submit."""
    spec_file: str
    """The spec's path as the user gave it."""
    submitted_at: str
    """ISO 8601 with offset."""
    parent: str | None = None
    """Job that this one continues from."""
    rerun_of: str | None = None
    """Job that this one repeats from its beginning, with its code and its config."""
    start_from: dict[str, Any] | None = None
    """Agent that the training began with: `{"agent": "2004711@240000", "job": "2004711", "step": 240000, "optimizers":
    true}`; its name in the spec, its job where it is one's, its step, whether its optimizers and scale came with it."""
    steps_total: int
    """Environment steps to do."""
    sweep: dict[str, Any] | None = None
    """Which point of a sweep it is: `{"index": 3, "count": 6, "point": {"agent.horizon": 4}}`, index from 0."""
    warned: tuple[str, ...] = ()
    """What was said against its config at submit, one line each; it was submitted all the same."""
    max_local: int | None = None
    """Local jobs that may run at once; None on a cluster."""

    @property
    def submitted(self) -> datetime:
        """When it was submitted, with offset. Raises RecordError when `submitted_at` is no time."""
        moment = parse_time(self.submitted_at)
        if moment is None:
            raise RecordError(f"job {self.id}: submitted_at is {self.submitted_at!r}, no ISO 8601 time")
        return moment

    @property
    def starts_from(self) -> str:
        """`2004711 at step 240,000`: the agent that the training began with; empty where it began with none, and where
        the job continues from another's checkpoints."""
        return start_words(self.start_from) if self.start_from is not None and self.parent is None else ""

    @property
    def code(self) -> str:
        """Which code it runs, in words: commit, whether the code differed from it, and the snapshot, or why there is
        none; empty where nothing is known."""
        parts = []
        if self.git_commit is not None:
            parts.append(f"{self.git_commit[:8]}{' with changes' if self.git_dirty else ''}")
        if self.snapshot is not None:
            parts.append(f"snapshot {self.snapshot[:8]}")
        elif self.live_code is not None and self.cluster != "debug":  # which is not meant to be repeated
            parts.append(f"not kept ({self.live_code})")
        if self.package is not None:
            parts.append(f"tdmpc-lab {self.package}")
        return ", ".join(parts)


def start_words(start: Mapping[str, Any]) -> str:
    """`JobRecord.start_from` in words: `2004711 at step 240,000`."""
    step = start.get("step")
    at = f" at step {step:,}" if _is_int(step) else ""
    return f"{start.get('job') or start.get('agent')}{at}{'' if start.get('optimizers') else ', its networks alone'}"


def write_record(paths: JobPaths, record: JobRecord) -> None:
    """Write `job.json`, which makes the folder a job.

    Raises RecordError when there is one already, or when the record is of another job.
    """
    if record.id != paths.id:
        raise RecordError(f"{paths.record}: the record is of job {record.id}; nothing was written")
    if paths.record.exists():
        raise RecordError(f"{paths.record}: exists already, and a record is written once; nothing was written")
    write_atomic(paths.record, json.dumps(asdict(record), ensure_ascii=True, indent=2) + "\n")


def read_record(paths: JobPaths) -> JobRecord:
    """The record of a job. Keys that this version does not know are ignored, missing optional ones default.

    Raises RecordError, naming the file, when it is missing, torn, lacks a value or holds one of a wrong type.
    """
    data = _read_object(paths.text(RECORD))
    shape = (tuple(data), tuple(map(type, data.values())))
    if shape in _SOUND and all(all(type(text) is str for text in data[name]) for name in _LISTS if name in data):
        # Nearly always: `status` reads thousands of records, and to set frozen fields one by one takes as long as to
        # read the file.
        record = object.__new__(JobRecord)
        lists = {name: tuple(data[name]) for name in _LISTS if name in data}
        record.__dict__.update({**_DEFAULTS, "resources": {}, **data, **lists})
    else:
        values = _checked(paths, data)
        if len(values) == len(data):
            _SOUND.add(shape)
        record = JobRecord(**values)
    if record.id != paths.id:
        raise RecordError(f"{paths.record}: says it is job {record.id}; was the folder copied or renamed?")
    if parse_time(record.submitted_at) is None:
        raise RecordError(f"{paths.record}: submitted_at is {record.submitted_at!r}, no ISO 8601 time")
    return record


def _checked(paths: JobPaths, data: dict[str, Any]) -> dict[str, Any]:
    """The values of a record's fields, as their types want them. Raises RecordError."""
    values: dict[str, Any] = {}
    for name, required, (accepted, convert, wanted) in _FIELDS:
        if name in data:
            value = data[name]
            if not accepted(value):
                raise RecordError(f"{paths.record}: {name} is {value!r}; it should be {wanted}")
            values[name] = convert(value)
        elif required:
            raise RecordError(f"{paths.record}: {name} is missing")
    return values


def _read_object(path: str) -> dict[str, Any]:
    try:
        data = json.loads(read_whole(path).decode())
    except FileNotFoundError:
        raise RecordError(f"{path}: missing; {Path(path).parent.name} is no job, or is still being made") from None
    except PermissionError as error:
        raise RecordError(reason(error)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: can't be read: {error}") from error
    if not isinstance(data, dict):
        raise RecordError(f"{path}: should hold one JSON object, holds a {type(data).__name__}")
    return data


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _or_none(accepted: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or accepted(value)


def _is_str(value: object) -> bool:
    return isinstance(value, str)


def _same(value: Any) -> Any:
    return value


# By the annotation in JobRecord: what is accepted, how it is converted, how it is called in an error.
_TYPES: dict[str, tuple[Callable[[Any], bool], Callable[[Any], Any], str]] = {
    "str": (_is_str, _same, "a text"),
    "str | None": (_or_none(_is_str), _same, "a text or null"),
    "int": (_is_int, _same, "an integer"),
    "int | None": (_or_none(_is_int), _same, "an integer or null"),
    "bool | None": (_or_none(lambda value: isinstance(value, bool)), _same, "true, false or null"),
    "tuple[str, ...]": (
        lambda value: isinstance(value, list) and all(map(_is_str, value)),
        tuple,
        "a list of texts",
    ),
    "dict[str, Any]": (lambda value: isinstance(value, dict), _same, "an object"),
    "dict[str, Any] | None": (_or_none(lambda value: isinstance(value, dict)), _same, "an object or null"),
}
_FIELDS = [
    (
        spec.name,
        spec.default is MISSING and spec.default_factory is MISSING,
        _TYPES[str(spec.type)],
    )
    for spec in fields(JobRecord)
]  # name, whether it is required, and what is accepted
_LISTS = tuple(spec.name for spec in fields(JobRecord) if spec.type == "tuple[str, ...]")
_DEFAULTS = {spec.name: spec.default for spec in fields(JobRecord) if spec.default is not MISSING}
_SOUND: set[tuple[tuple[str, ...], tuple[type, ...]]] = set()
"""Names and types of records that were found to hold all that they should, and nothing else."""


def prepare_job(
    project: Project,
    job_id: str | None,
    spec_text: str,
    resolved_text: str,
    make_record: Callable[[str], JobRecord],
) -> JobPaths:
    """Make the folder of a job with its spec, its resolved spec and, last, its record.

    `job_id` None takes a new local id; `make_record` gets the id. The record makes the folder a job, so
    a crash before it leaves a folder that every command ignores; an exception removes what was made.
    The folder of a given id may exist without a record: a scheduler may have opened its log there first.
    Raises RecordError when the id has a job already, UsageError for what can't be an id, and whatever
    `make_record` raises.
    """
    with _folder(project, job_id) as paths:
        make_folder(paths.checkpoints)
        write_atomic(paths.spec, spec_text)
        write_atomic(paths.resolved, resolved_text)
        write_record(paths, make_record(paths.id))
    return paths


def refuse_known(project: Project, job_ids: Iterable[str]) -> None:
    """Raise RecordError where the project has anything of a job, or of a task of an array, that has one of these ids.

    A scheduler may begin its ids anew. A note without a folder is a job's, too: folders are removed or stay on another
    machine, notes are kept.
    """
    for job_id in job_ids:
        folder, note = project.job(job_id).folder, project.note(job_id)
        tasks = [*project.jobs.glob(f"{job_id}_*"), *project.notes.glob(f"{job_id}_*.md")] if "_" not in job_id else []
        there = [path for path in (folder, note, *tasks) if path.exists() or path.is_symlink()]
        if there:
            raise RecordError(
                f"{there[0]}: exists already, so this project had a job {job_id} before, and SLURM begins its ids "
                "anew; nothing was changed, and the new job is taken out of the queue. Submit again: it gets another id"
            )


@contextlib.contextmanager
def _folder(project: Project, job_id: str | None) -> Iterator[JobPaths]:
    """Yield the folder to fill; on an exception it is as before: gone, or with what it held."""
    if job_id is None:
        paths, existed = allocate_local_folder(project, datetime.now().astimezone()), False
    else:
        paths = project.job(job_id)
        project.jobs.mkdir(parents=True, exist_ok=True)
        try:
            make_folder(paths.folder)
            existed = False
        except FileExistsError:
            existed = True
    files = (paths.spec, paths.resolved, paths.code_diff, paths.record, paths.metrics)
    folders = (paths.checkpoints, paths.opponents, paths.pool, paths.start.parent)
    ours = (*files, *folders)
    if taken := next((path for path in ours if path.exists()), None):
        raise RecordError(f"{taken}: exists already, so job {paths.id} was made before; nothing was changed")
    try:
        yield paths
    except BaseException:
        if existed:
            for path in files:
                path.unlink(missing_ok=True)
            for path in folders:
                shutil.rmtree(path, ignore_errors=True)
        else:
            shutil.rmtree(paths.folder, ignore_errors=True)
        raise


_MOST_TRIES = 10_000  # ids tried from one moment on: ten seconds' worth


def allocate_local_folder(project: Project, now: datetime) -> JobPaths:
    """Reserve a local id by making its folder; a taken id moves on by 1 ms until one is free.

    mkdir decides, so processes that submit at the same moment never share a folder. Raises RecordError when
    ten thousand ids in a row are taken, OSError when the folder can't be made.
    """
    project.jobs.mkdir(parents=True, exist_ok=True)
    for millisecond in range(_MOST_TRIES):
        paths = project.job(new_local_id(now + timedelta(milliseconds=millisecond)))
        try:
            make_folder(paths.folder)
        except FileExistsError:
            continue
        return paths
    raise RecordError(f"{project.jobs}: {_MOST_TRIES:,} ids from {new_local_id(now)} on are taken; try again")
