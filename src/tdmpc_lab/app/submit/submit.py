"""`submit`: plans jobs, records each in its folder and starts it; on SLURM as one job, or a sweep as a job array."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tdmpc_lab.app.agents.opponents import freeze_opponents
from tdmpc_lab.app.joblog.write import write_array_note, write_note
from tdmpc_lab.app.submit.code import JobCode, code_changes
from tdmpc_lab.app.submit.resources import check_resources, settle_dependencies
from tdmpc_lab.app.submit.specs import check_environments, comparisons, environment_dimensions, load_all
from tdmpc_lab.app.submit.starts import StartAgent, find_starts, start_of_record
from tdmpc_lab.config.diff import STEPS, config_hash, diff, group_hash
from tdmpc_lab.config.loader import LoadedSpec, load_resolved
from tdmpc_lab.config.schema import SlurmConfig, Spec
from tdmpc_lab.config.serialize import dump_set_yaml, dump_yaml, plain
from tdmpc_lab.errors import ExternalError, LabError
from tdmpc_lab.files import JsonlWriter, write_atomic
from tdmpc_lab.jobs.events import EventLog, ask, read_events
from tdmpc_lab.jobs.ids import array_of
from tdmpc_lab.jobs.metrics import end_of_step
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, prepare_job, read_record, refuse_known
from tdmpc_lab.jobs.state import SchedulerState
from tdmpc_lab.jobs.variants import variant_after
from tdmpc_lab.notes.note import is_untouched
from tdmpc_lab.secret import secret_values, without_secrets
from tdmpc_lab.sharing import reason
from tdmpc_lab.streams import as_typed

if TYPE_CHECKING:
    from tdmpc_lab.app.checks.estimate import RunTimeEstimate


Cluster = Literal["local", "slurm", "debug"]
SUPERVISOR = "tdmpc_lab.app.supervisor"
PENDING = SchedulerState("PENDING")


@dataclass(frozen=True)
class Submitted:
    """A job that was made."""

    id: str
    folder: Path
    note: Path
    cluster: Cluster
    steps: int
    mlflow_run: str | None = None

    @property
    def array(self) -> str | None:
        """The job array that it is a task of."""
        of = array_of(self.id)
        return of[0] if of else None

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "id": self.id,
            "folder": str(self.folder),
            "note": str(self.note),
            "mlflow_run": self.mlflow_run,
        }


@dataclass(frozen=True)
class JobPlan:
    """A spec ready to be submitted, with everything that could be found wrong looked at."""

    item: LoadedSpec
    diff: tuple[str, ...]
    compared_to: str | None = None
    """The job that `diff` is taken against, where it is one."""
    comparison_gone: bool = False
    """Nothing is left of what the spec's `compare_to` names: there are no differences to tell."""
    goes_on_from: JobPaths | None = None
    """The job whose metrics and checkpoints the new one begins with."""
    rerun_of: JobPaths | None = None
    """The job whose config and code the new one begins with."""
    start: StartAgent | None = None
    """The agent that its training begins with; None for a fresh one, and for one that continues from checkpoints."""
    warned: tuple[str, ...] = ()
    """What was said against its config, for the record."""
    resolved: str | None = None
    """The values in force where another version of this package is to read them; by default this one's."""

    @property
    def steps_done(self) -> int:
        """Of its steps those that it begins with, done by the job that it continues from."""
        return 0 if self.goes_on_from is None else self.goes_on_from.checkpoint_step


def choose_cluster(wanted: str) -> Cluster:
    """`auto` is SLURM where sbatch is on the PATH, else this machine."""
    from tdmpc_lab.launch.slurm import has_sbatch

    if wanted == "auto":
        return "slurm" if has_sbatch() else "local"
    assert wanted in ("local", "slurm", "debug")
    return wanted  # type: ignore[return-value]


def plan(
    project: Project,
    specs: Sequence[str],
    overrides: Sequence[str],
    *,
    environments: bool = True,
    sizes: bool = True,
) -> list[JobPlan]:
    """Read and check specs, with their `environments` unless that is done elsewhere.

    `sizes`: agents that trainings begin with are compared to the sizes of the environments, which are made for that.

    Raises:
        SpecError: every problem of every spec.
    """
    loaded = load_all(project, specs, overrides)
    compared = comparisons(project, loaded)
    check_resources(loaded)
    if environments:
        check_environments(project, loaded)
    starts = find_starts(project, loaded, make_environments=sizes)
    return [
        JobPlan(item, found.diff, found.job, start=start)
        for item, found, start in zip(loaded, compared, starts, strict=True)
    ]


def settle(project: Project, plans: Sequence[JobPlan]) -> list[JobPlan]:
    """The plans for SLURM, without jobs in `slurm.after` that are over; each of those is told on standard error.

    Raises:
        SpecError: a job in `slurm.after` can't be waited for.
    """
    settled: list[JobPlan] = []
    for ready in plans:
        if settled and of_one_sweep(settled[-1], ready):  # the points of a sweep ask for the same
            slurm = settled[-1].item.spec.slurm
            settled.append(replace(ready, item=replace(ready.item, spec=replace(ready.item.spec, slurm=slurm))))
            continue
        item, said = settle_dependencies(project, ready.item)
        settled.append(replace(ready, item=item))
        for line in said:
            print(f"slurm.after: {line}", file=sys.stderr)
    return settled


def dry_run(
    project: Project,
    ready: JobPlan,
    cluster: Cluster,
    code: JobCode,
    estimates: dict[str, RunTimeEstimate | None],
    tasks: int = 1,
) -> dict[str, Any]:
    """What `submit` would do with one spec: the values in force, the estimated time, and for SLURM the batch script,
    of a job array where there are several `tasks`.

    `estimates` keeps the times of specs that are alike, as most points of a sweep are: empty at first.
    Raises LabError where the agent of a job on this machine can't be built.
    """
    spec = ready.item.spec
    script = None
    if cluster == "slurm":
        from tdmpc_lab.launch.sbatch import sbatch_script

        script = sbatch_script(project, spec.slurm, spec.name, workplace=code.workplace, tasks=tasks)
    from tdmpc_lab.app.checks.estimate import alike

    done = ready.steps_done
    key = alike(spec, cluster, done)
    if key not in estimates:
        estimates[key] = _estimate(project, spec, cluster, done)
    estimate = estimates[key]
    return {
        "name": spec.name,
        "spec": str(ready.item.path),
        "cluster": cluster,
        "estimate": None if estimate is None else estimate.as_dict(),
        "sweep": None if ready.item.point is None else ready.item.point.as_dict(),
        "goes_on_from": None
        if ready.goes_on_from is None
        else {"job": ready.goes_on_from.id, "step": ready.steps_done},
        "start_from": None if ready.start is None else ready.start.told,
        "diff": list(ready.diff),
        "warnings": list(ready.warned),
        "snapshot": code.snapshot,
        "set": dump_set_yaml(spec),
        "resolved": dump_yaml(spec),
        "sbatch": script,
    }


def _estimate(project: Project, spec: Spec, cluster: Cluster, done: int) -> RunTimeEstimate | None:
    """From earlier jobs; without any, a job on this machine is measured for a moment."""
    from tdmpc_lab.app.checks.estimate import estimate_run_time, measure_run_time

    found = estimate_run_time(project, spec, cluster, done)
    if found is not None or cluster == "slurm":  # its nodes are other machines than this
        return found
    sizes = environment_dimensions(spec.env)
    return measure_run_time(spec, sizes.observation, sizes.action, sizes.episode_length, done)


def groups(plans: Sequence[JobPlan], cluster: Cluster) -> list[list[JobPlan]]:
    """What is submitted together: in SLURM the points of one sweep, else every job alone."""
    together: list[list[JobPlan]] = []
    for ready in plans:
        if cluster == "slurm" and together and of_one_sweep(together[-1][-1], ready):
            together[-1].append(ready)
        else:
            together.append([ready])
    return together


def of_one_sweep(before: JobPlan, ready: JobPlan) -> bool:
    """Whether a plan is of the same sweep of the same spec as the one before it; points may have been left out."""
    first, second = before.item.point, ready.item.point
    return (
        first is not None and second is not None and first.index < second.index and before.item.path == ready.item.path
    )


def submit_group(
    project: Project,
    group: Sequence[JobPlan],
    cluster: Cluster,
    *,
    code: JobCode,
    max_local: int,
    on_recorded: Callable[[Sequence[Submitted]], None],
) -> None:
    """Record one of `groups` and start it; `on_recorded` is told in between. A debug job runs here, to its end.

    Raises:
        ExternalError: SLURM is missing or refused the job, and nothing stays behind; or no process can be started for
            a local job, which is FAILED then.
        LabError and what the training raises: from a debug job.
    """
    from tdmpc_lab.app.worker import run_job

    if cluster == "slurm":
        submit_slurm(project, group, code, on_recorded)
        return
    (ready,) = group
    paths = prepare(project, ready, cluster, code, None, max_local if cluster == "local" else None)
    tell_parent(ready, paths.id)
    on_recorded([submitted(project, paths, ready, cluster)])
    if cluster == "local":
        from tdmpc_lab.launch.local import start_local

        try:
            start_local(paths, project, max_local, SUPERVISOR, code.workplace)
        except OSError as error:
            raise _not_started(paths, error) from error
    else:
        from tdmpc_lab.launch.local import run_debug

        run_debug(paths.folder / "submitit", run_job, str(project.root), paths.id)


def _not_started(paths: JobPaths, error: OSError) -> ExternalError:
    """For a job that is recorded and has no process: that is on file then, so that nobody waits for it."""
    cause = f"it could not be started: {reason(error)}"
    with contextlib.suppress(OSError):
        EventLog(paths.events).append("failed", cause=cause, error=type(error).__name__, traceback="", step=None)
    return ExternalError(f"job {paths.id}: {cause}; when that is mended: tdmpc-lab rerun {paths.id}")


def prepare(
    project: Project, ready: JobPlan, cluster: Cluster, code: JobCode, job_id: str | None, max_local: int | None
) -> JobPaths:
    """The job's folder with its record, and its first note."""
    spec = ready.item.spec
    group, variant = _variant_of(ready)
    against = ready.compared_to if ready.goes_on_from is None else ready.goes_on_from.id
    changes = None if against is None else code_changes(project, against, code)

    def make_record(new_id: str) -> JobRecord:
        if code.diff is not None:
            write_atomic(project.job(new_id).code_diff, code.diff.encode(errors="surrogateescape"))
        if ready.goes_on_from is not None:  # before the record is written: no job without what it continues from
            copy_progress(ready.goes_on_from, project.job(new_id))
        else:
            freeze_opponents(project, spec, project.job(new_id), ready.rerun_of)
            if ready.start is not None:
                ready.start.keep(project.job(new_id))
        array, task = array_of(new_id) or (None, None)
        return JobRecord(
            id=new_id,
            array_id=array,
            array_task=task,
            experiment=spec.name,
            env_id=spec.env.id,
            about=spec.about,
            why=spec.why,
            group=group,
            variant=variant,
            config_hash=config_hash(spec),
            seed=spec.train.seed,
            overrides=ready.item.overrides,
            compare_to=None if ready.comparison_gone else spec.compare_to,
            diff=ready.diff,
            code_against=None if changes is None else against,
            code_changes=changes or (),
            git_commit=code.commit,
            git_dirty=code.dirty,
            snapshot=code.snapshot,
            live_code=code.live,
            left_out=code.all_left_out,
            package=code.package,
            cluster=cluster,
            resources=_resources(spec.slurm) if cluster == "slurm" else {},
            command=("tdmpc-lab", *(without_secrets(as_typed(word), secret_values())[0] for word in sys.argv[1:])),
            spec_file=shown_path(project, ready.item.path),
            submitted_at=datetime.now().astimezone().isoformat(timespec="milliseconds"),
            steps_total=spec.train.steps,
            sweep=_sweep_of(ready),
            warned=ready.warned,
            max_local=max_local,
            parent=None if ready.goes_on_from is None else ready.goes_on_from.id,
            rerun_of=None if ready.rerun_of is None else ready.rerun_of.id,
            start_from=_start_of(ready),
        )

    resolved = ready.resolved or dump_yaml(spec)
    paths = prepare_job(project, job_id, ready.item.text, resolved, make_record)
    try:
        write_note(project, paths, PENDING)
    except LabError as error:  # the job is recorded; its note can be written again at any time
        print(f"warning: the note of {paths.id} was not written: {error}", file=sys.stderr)
    return paths


def tell_parent(ready: JobPlan, job_id: str) -> None:
    """Put on file, in the folder of the job that a new one continues from, that there is this new one."""
    if ready.goes_on_from is not None:
        with contextlib.suppress(OSError):  # the old job's folder may be somebody else's; the new one names it too
            ask(ready.goes_on_from, "resume", job=job_id)


def _variant_of(ready: JobPlan) -> tuple[str, str | None]:
    """The job's group, and the name of its variant where that is not told from its own record: as the job that it goes
    on from or repeats has them, unless more was changed than how long a resumed one trains."""
    spec, old = ready.item.spec, ready.goes_on_from or ready.rerun_of
    if old is None:
        return group_hash(spec), None
    record, before = read_record(old), load_resolved(old.resolved)
    passed = (STEPS,) if ready.goes_on_from is not None else ()
    same = group_hash(before, apart_from=passed) == group_hash(spec, apart_from=passed)
    changes = [str(change) for change in diff(before, spec) if change.key not in passed]
    return record.group if same else group_hash(spec), variant_after(record, changes)


def _resources(config: SlurmConfig) -> dict[str, Any]:
    """What is asked for, for the record: keys that ask for nothing are left out."""
    from tdmpc_lab.launch.sbatch import memory_asked_for

    asked = plain(asdict(config)) | {"memory": memory_asked_for(config)}
    return {key: value for key, value in asked.items() if value not in (None, [], {})}


def _start_of(ready: JobPlan) -> dict[str, Any] | None:
    """The agent that it, or the job that it continues from, began with."""
    if ready.goes_on_from is not None:
        return start_of_record(ready.goes_on_from)
    return None if ready.start is None else ready.start.told


def _sweep_of(ready: JobPlan) -> dict[str, Any] | None:
    """Which point of a sweep the job is: its own, or that of the job it repeats, if it still has those values."""
    if ready.item.point is not None:
        return ready.item.point.as_dict()
    old = ready.goes_on_from or ready.rerun_of
    sweep = read_record(old).sweep if old is not None else None
    if old is None or sweep is None:
        return None
    changed = diff(load_resolved(old.resolved), ready.item.spec)
    point = sweep.get("point")
    kept = isinstance(point, dict) and not any(_overlap(change.key, key) for change in changed for key in point)
    return sweep if kept else None


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def copy_progress(old: JobPaths, new: JobPaths) -> None:
    """What training continues from, out of one job's folder into that of another: metrics up to the last checkpoint
    (the worker cuts them to the byte), checkpoints, the agents it plays against, and for a rerun the one it began with.

    Raises OSError and RecordError.
    """
    if old.metrics.exists():
        shutil.copyfile(old.metrics, new.metrics)
        with JsonlWriter(new.metrics) as rows:
            rows.truncate_to(end_of_step(new, old.checkpoint_step))
    for pattern in ("step_*.pt", "episodes_*.pt"):  # checkpoints, and the files of the replay that they name
        for saved in old.checkpoints.glob(pattern):
            shutil.copyfile(saved, new.checkpoints / saved.name)
    for kept, place in ((old.pool, new.pool), (old.opponents, new.opponents), (old.start.parent, new.start.parent)):
        if kept.is_dir():
            shutil.copytree(kept, place)


def shown_path(project: Project, path: Path) -> str:
    """The path from the project's root where it lies within, so that commands in notes can be typed there."""
    full = path.resolve()
    return str(full.relative_to(project.root)) if full.is_relative_to(project.root) else str(full)


def submitted(project: Project, paths: JobPaths, ready: JobPlan, cluster: Cluster) -> Submitted:
    """A recorded job, as the command line tells of it."""
    return Submitted(
        paths.id, paths.folder, project.note(paths.id), cluster, ready.item.spec.train.steps, run_id_of(paths)
    )


def run_id_of(paths: JobPaths) -> str | None:
    """The MLflow run of a job, once the job has noted it."""
    runs = [e.get("run_id") for e in read_events(paths.events) if e.get("event") == "tracking"]
    return str(runs[-1]) if runs else None


def submit_slurm(
    project: Project, group: Sequence[JobPlan], code: JobCode, on_recorded: Callable[[Sequence[Submitted]], None]
) -> None:
    """Submit held, write every record, release: no job starts before its record is complete.

    All or none: what fails on the way cancels what was submitted and removes what was written. If this process
    is killed, held jobs stay in the queue, which `status` finds by their mark.

    Raises:
        ExternalError, UsageError: SLURM is missing, or refused the jobs.
        LabError, OSError: a record can't be written.
    """
    from tdmpc_lab.launch.slurm import even_chunks, max_array_size, release, submitting, task_ids

    chunks = even_chunks(group, max_array_size()) if len(group) > 1 else [list(group)]
    with submitting(project) as mark, _undone_on_error(project) as made:
        jobs = []
        for chunk in chunks:
            # A limit holds for the whole sweep: its arrays wait for each other.
            previous = made.arrays[-1] if made.arrays and chunk[0].item.spec.slurm.array_limit else None
            made.arrays.append(_submit_held(project, chunk, code, mark, previous, made.arrays))
            ids = list(dict.fromkeys([made.arrays[-1], *task_ids(made.arrays[-1], len(chunk))]))
            refuse_known(project, ids)
            made.ids += ids
        for array_id, chunk in zip(made.arrays, chunks, strict=True):
            for job_id, ready in zip(task_ids(array_id, len(chunk)), chunk, strict=True):
                jobs.append(submitted(project, _record(project, ready, code, job_id), ready, "slurm"))
            _write_whole_note(project, array_id)
        for array_id in made.arrays:
            release(array_id)
    for ready, job in zip(group, jobs, strict=True):
        tell_parent(ready, job.id)
    on_recorded(jobs)


def _submit_held(
    project: Project, chunk: Sequence[JobPlan], code: JobCode, mark: str, after: str | None, siblings: Sequence[str]
) -> str:
    from tdmpc_lab.app.worker import run_job
    from tdmpc_lab.launch.slurm import submit_held

    spec = chunk[0].item.spec
    return submit_held(
        project,
        spec.slurm,
        spec.name,
        run_job,
        str(project.root),
        comment=mark,
        workplace=code.workplace,
        tasks=len(chunk),
        after=after,
        siblings=siblings,
    )


def _record(project: Project, ready: JobPlan, code: JobCode, job_id: str) -> JobPaths:
    from tdmpc_lab.launch.local import link_logs
    from tdmpc_lab.launch.sbatch import submit_folder

    paths = prepare(project, ready, "slurm", code, job_id, None)
    link_logs(paths, submit_folder(project), job_id)
    return paths


def _write_whole_note(project: Project, array_id: str) -> None:
    try:
        write_array_note(project, array_id)
    except LabError as error:  # the jobs are recorded; the note can be written again at any time
        print(f"warning: the note of array {array_id} was not written: {error}", file=sys.stderr)


@dataclass
class _Made:
    """What one submit has made so far, to be taken back should it fail."""

    arrays: list[str] = field(default_factory=list)
    """Jobs and arrays in SLURM's queue."""
    ids: list[str] = field(default_factory=list)
    """Jobs and arrays of which the project had nothing before: what it has now was made here."""


@contextlib.contextmanager
def _undone_on_error(project: Project) -> Iterator[_Made]:
    """What is put in here is taken back on an exception; a note in which a user wrote meanwhile stays."""
    from tdmpc_lab.launch.slurm import cancel_ids

    made = _Made()
    try:
        yield made
    except BaseException:
        cancel_ids(made.arrays)  # a job without a record must not run
        for job_id in made.ids:
            shutil.rmtree(project.job(job_id).folder, ignore_errors=True)
            note = project.note(job_id)
            if note.exists() and is_untouched(note.read_bytes()):
                note.unlink()
        raise
