"""New jobs from old ones: `resume` continues from the last checkpoint, `rerun` starts afresh with the old code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from tdmpc_lab.app.queue.status import job_views
from tdmpc_lab.app.submit.code import JobCode, code_of_job
from tdmpc_lab.app.submit.resources import refuse_profile
from tdmpc_lab.app.submit.specs import SpecComparison, check_environments, comparisons, differences, refuse_sweep
from tdmpc_lab.app.submit.starts import find_starts
from tdmpc_lab.app.submit.submit import JobPlan
from tdmpc_lab.config.loader import LoadedSpec, load_resolved, load_stored
from tdmpc_lab.config.rules import NETWORK_KEYS
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.config.serialize import flatten, to_dict
from tdmpc_lab.errors import LabError, RecordError, SpecError, UsageError
from tdmpc_lab.jobs.find import require_job
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, read_record
from tdmpc_lab.jobs.state import State
from tdmpc_lab.launch.process import clean_environment
from tdmpc_lab.streams import UTF8_STREAMS

# What a checkpoint is bound to: the networks' shapes, and what the running episodes and random draws come from.
FIXED = (
    "env.id",
    "train.seed",
    "train.envs",
    "train.start_from",
    "phases",
    *NETWORK_KEYS,
)


def plan_resume(project: Project, job: str, overrides: Sequence[str], steps: int | None) -> JobPlan:
    """What a job that continues `job` would be: the old one's config, with overrides and perhaps more steps.

    Raises:
        UsageError: no such job, it is still going on, it has no checkpoint, or no step is left to do.
        SpecError: the overrides do not fit, or the environment can't be made.
        RecordError: the old job's files can't be read.
    """
    old = require_job(project, job)
    view = job_views(project, [old.id])[0]
    if view.status is None or view.record is None:
        raise RecordError(f"job {old.id} can't be read: {view.problem}")
    if not view.over:
        why = f" ({view.status.cause})" if view.status.cause else ""
        if view.status.state is State.UNKNOWN:
            raise UsageError(f"whether job {old.id} still runs can't be told{why}; try again when it can")
        raise UsageError(
            f"job {old.id} is {view.status.state}{why}; it continues by itself. To continue as a new job instead, "
            f"first: tdmpc-lab cancel {old.id} --save"
        )
    if not any(old.checkpoints.glob("step_*.pt")):
        raise UsageError(f"job {old.id} left no checkpoint to continue from; start it afresh: tdmpc-lab rerun {old.id}")
    refuse_profile(old.id, overrides)
    words = list(overrides) + ([f"train.steps={steps}"] if steps is not None else [])
    loaded = load_stored(old.resolved, words)
    refuse_sweep(loaded, "resumed")
    _refuse_what_no_checkpoint_fits(old, loaded.spec)
    reached = old.checkpoint_step
    if loaded.spec.train.steps <= reached:
        raise UsageError(
            f"job {old.id} has a checkpoint at step {reached:,} and train.steps is {loaded.spec.train.steps:,}: no "
            "step is left to do; give more with --steps N"
        )
    check_environments(project, [loaded], old)
    found, gone = _compared(project, loaded, old, overrides)
    text = old.spec.read_text(encoding="utf-8")
    item = replace(loaded, text=text, overrides=tuple(words))
    return JobPlan(item, found.diff, found.job, gone, goes_on_from=old)


def _compared(
    project: Project, loaded: LoadedSpec, old: JobPaths, overrides: Sequence[str]
) -> tuple[SpecComparison, bool]:
    """What differs from `compare_to`, and whether nothing is left of that: told then, and no reason not to continue.

    Raises SpecError where an override names what is not there.
    """
    try:
        (found,) = comparisons(project, [loaded], leave_out=_line_of(project, old))
    except SpecError as error:
        if any(word.startswith("compare_to=") for word in overrides):
            raise
        print(f"the differences to {loaded.spec.compare_to} are not told: {error}", file=sys.stderr)
        return SpecComparison(), True
    return found, False


def _line_of(project: Project, old: JobPaths) -> set[str]:
    """The job, and those it continued from one after the other: none of them is another experiment to compare to."""
    line: set[str] = set()
    while old.id not in line:
        line.add(old.id)
        try:
            parent = read_record(old).parent
        except RecordError:  # it was removed
            break
        if parent is not None:
            old = project.job(parent)
    return line


def _refuse_what_no_checkpoint_fits(old: JobPaths, spec: Spec) -> None:
    """Raise UsageError for a changed key that the old job's networks, episodes or random state can't follow."""
    before, now = flatten(to_dict(load_resolved(old.resolved))), flatten(to_dict(spec))
    changed = [key for key in FIXED if before.get(key) != now.get(key)]
    if changed:
        listed = ", ".join(f"{key} ({before.get(key)} → {now.get(key)})" for key in changed)
        raise UsageError(
            f"a resumed job can't change {listed}: the checkpoint was made with the old value; submit a new job instead"
        )


_TIMEOUT_S = 60
_RESOLVE = """
import sys
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.serialize import dump_yaml
sys.stdout.write(dump_yaml(load_spec(sys.argv[1], sys.argv[2:]).spec))
"""


def plan_rerun(project: Project, job: str, overrides: Sequence[str]) -> tuple[JobPlan, JobCode | None]:
    """What a job that repeats `job` would be, and the code it runs; None where the old one ran the project's own
    files, so that those of now are all there is.

    Overridden keys are shown as the differences to the old job. The environment is made only where the code is
    that of now: that of the snapshot has been made before.
    Raises:
        UsageError: no such job.
        SpecError: the overrides do not fit, or the environment can't be made.
        RecordError: the old job's files can't be read, or its snapshot is gone.
    """
    old = require_job(project, job)
    record = read_record(old)
    (view,) = job_views(project, [old.id])
    if not view.over:
        print(f"note: job {old.id} is {view.state} and not over: the new one runs beside it", file=sys.stderr)
    code = code_of_job(project, old, record)
    words = list(overrides)
    refuse_profile(old.id, words)
    if words and not any(word.startswith("compare_to=") for word in words):
        words.append(f'compare_to="{old.id}"')  # quoted: a SLURM id would be a number
    loaded = load_stored(old.resolved, words)
    refuse_sweep(loaded, "run again")
    if code is None:
        check_environments(project, [loaded])
    (start,) = find_starts(project, [loaded], make_environments=code is None, repeated=old)
    diff = _differences(project, loaded, record, bool(words))
    item = replace(loaded, text=old.spec.read_text(encoding="utf-8"), overrides=tuple(overrides))
    resolved = None
    if code is not None and code.package is None:
        resolved = _resolved(old, words, code)
    return JobPlan(item, diff, rerun_of=old, start=start, resolved=resolved), code


def _differences(project: Project, loaded: LoadedSpec, record: JobRecord, changed: bool) -> tuple[str, ...]:
    return differences(project, [loaded])[0] if changed else record.diff


def _resolved(old: JobPaths, words: Sequence[str], code: JobCode) -> str:
    """The values in force as the old package itself writes them: it may not know every key of this one.

    Raises LabError, with its words, when it does not take the overrides.
    """
    if not words:
        return old.resolved.read_text(encoding="utf-8")
    assert code.workplace is not None
    done = subprocess.run(
        [sys.executable, "-c", _RESOLVE, str(old.resolved), *words],
        cwd=code.workplace.folder,
        env=code.workplace.environment(clean_environment(os.environ)) | UTF8_STREAMS,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise LabError(f"the code that job {old.id} ran does not take {' '.join(words)}; it says: {said}")
    return done.stdout
