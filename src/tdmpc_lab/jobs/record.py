"""`job.json`: what was known when the job was submitted. Written once, never changed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from tdmpc_lab.errors import RecordError
from tdmpc_lab.files import write_atomic
from tdmpc_lab.jobs.paths import JobPaths
from tdmpc_lab.text import parse_time

_GIT_TIMEOUT_S = 10.0


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
    seed: int
    """Seed of the training."""
    overrides: tuple[str, ...] = ()
    """`key=value` as given on the command line or by the sweep."""
    compare_to: str | None = None
    """Experiment or job that `diff` is taken against."""
    diff: tuple[str, ...] = ()
    """Differences in words: `agent.horizon 18 → 9`."""
    git_commit: str | None = None
    """Commit the code was at; None outside a repository."""
    git_dirty: bool | None = None
    """Whether the code differed from that commit; None when not known."""
    snapshot: str | None = None
    """Folder of the code the job runs; None when it runs from the project itself."""
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
    """Job that this one repeats or goes on from."""
    steps_total: int
    """Environment steps to do."""
    sweep: dict[str, Any] | None = None
    """Which point of a sweep it is: `{"index": 3, "count": 6, "point": {"agent.horizon": 4}}`, index from 0."""
    max_local: int | None = None
    """Local jobs that may run at once; None on a cluster."""

    @property
    def submitted(self) -> datetime:
        """When it was submitted, with offset. Raises RecordError when `submitted_at` is no time."""
        moment = parse_time(self.submitted_at)
        if moment is None:
            raise RecordError(f"job {self.id}: submitted_at is {self.submitted_at!r}, no ISO 8601 time")
        return moment


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
    data = _read_object(paths.record)
    values: dict[str, Any] = {}
    for spec in fields(JobRecord):
        if spec.name in data:
            accepted, convert, wanted = _TYPES[str(spec.type)]
            value = data[spec.name]
            if not accepted(value):
                raise RecordError(f"{paths.record}: {spec.name} is {value!r}; it should be {wanted}")
            values[spec.name] = convert(value)
        elif spec.default is MISSING and spec.default_factory is MISSING:
            raise RecordError(f"{paths.record}: {spec.name} is missing")
    record = JobRecord(**values)
    if record.id != paths.id:
        raise RecordError(f"{paths.record}: says it is job {record.id}; was the folder copied or renamed?")
    if parse_time(record.submitted_at) is None:
        raise RecordError(f"{paths.record}: submitted_at is {record.submitted_at!r}, no ISO 8601 time")
    return record


def _read_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path}: missing; {path.parent.name} is no job, or is still being made") from None
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


def git_state(root: Path) -> tuple[str | None, bool | None]:
    """Commit of the code under `root`, and whether the tree differs from it.

    What the tool itself writes there (jobs/, notes/, mlruns/) does not count as a difference. The commit is
    None where there is none yet; (None, None) outside a repository and without git. Never raises: a job
    must not fail for want of it.
    """
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    own = (":(exclude)jobs", ":(exclude)notes", ":(exclude)mlruns")
    changes = _git(root, "status", "--porcelain", "--", ":/", *own)
    return commit or None, None if changes is None else bool(changes)


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, or None when it fails. Hooks export GIT_DIR and the like: those are not passed on."""
    environment: Mapping[str, str] = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
    }
    try:
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", *arguments],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
