"""Jobs in SLURM: submitted with scripts and pickles of submitit, released, signalled, cancelled; one, or a job array.

What a submit that broke off left in SLURM's queue is found again by a mark in the jobs' comment:

jobs/.submitit/<mark>.submit    made before sbatch is called, locked by the submitting process, removed when
                                everything is recorded and released
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import math
import os
import re
import secrets
import shutil
import sys
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tdmpc_lab.config.schema import SlurmConfig
from tdmpc_lab.errors import ExternalError, UsageError
from tdmpc_lab.files import file_lock
from tdmpc_lab.jobs.find import is_recorded
from tdmpc_lab.jobs.ids import expand_tasks, is_slurm_id
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch.commands import command, refusal, run
from tdmpc_lab.launch.process import Workplace
from tdmpc_lab.launch.sbatch import held_parameters, script_text, submit_folder
from tdmpc_lab.sharing import make_folder
from tdmpc_lab.text import one_line, shorten

_LEFTOVER = re.compile(r"\.submission_file_[0-9a-f]{32}\.sh|[0-9a-f]{32}\.pkl")
_ANSWER = re.compile(r"([1-9][0-9]{0,18})|Submitted batch job ([1-9][0-9]{0,18})", re.ASCII)
_SBATCH_S = 300.0  # it asks a busy controller again and again by itself
_TIMEOUTS = 3  # as submitit has it
_GONE_ALREADY = re.compile(r"invalid job id|already completing or completed", re.IGNORECASE)


def has_sbatch() -> bool:
    """Whether SLURM's commands are on this machine."""
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def sbatch_options() -> frozenset[str]:
    """The long options that this machine's sbatch tells of in its help; none without it. Plug-ins add theirs."""
    try:
        return frozenset(re.findall(r"(?<!\S)--([a-z][a-z0-9-]+)", run(["sbatch", "--help"]).stdout))
    except ExternalError:
        return frozenset()


def sbatch_takes(option: str, value: str | int | bool) -> bool:
    """Whether this machine's sbatch takes a long option with this value, be it in its help or not; False without it.

    Nothing is submitted: of what it understands it continues to print its help.
    """
    word = f"--{option}" if value is True else f"--{option}={value}"
    try:
        return run(["sbatch", word, "--help"]).returncode == 0
    except ExternalError:
        return False


def submit_held(
    project: Project,
    config: SlurmConfig,
    name: str,
    function: Callable[..., object],
    *args: object,
    comment: str = "",
    workplace: Workplace | None = None,
    tasks: int = 1,
    after: str | None = None,
    siblings: Collection[str] = (),
) -> str:
    """Hand a job to SLURM, held: it starts after `release`, when its folder is complete. Returns its id.

    Several `tasks` are one job array, and the id is the array's. `after` is a job or array that has to be over.
    A comment that no other job has but these `siblings` finds the job in the queue where sbatch does not name it.

    Raises SpecError for options that can't be used, UsageError when sbatch refuses the job, ExternalError
    when there is no SLURM here or it does not answer. Nothing is left in the queue then.
    """
    parameters = held_parameters(project, config, name, comment, workplace, tasks)
    if after is not None:
        asked = [parameters["dependency"]] if "dependency" in parameters else []
        parameters["dependency"] = ",".join([*asked, f"afterany:{after}"])
    if not has_sbatch():
        raise ExternalError(
            "SLURM is not on this machine: there is no sbatch or srun. "
            "Submit from the cluster's login node, or use --cluster local"
        )
    from submitit.core.utils import JobPaths

    folder = submit_folder(project)
    make_folder(folder, exist_ok=True)  # scripts, pickles and logs are nobody else's business
    with file_lock(folder / ".lock"):
        script = folder / f".submission_file_{uuid.uuid4().hex}.sh"
        try:
            text = script_text(project, config, parameters, tasks)
            script.write_text(text, encoding="utf-8", errors="surrogateescape")
            pickles = _pickles(folder, parameters["time"], tasks, function, args)
            job_id = _sbatch(script, _request(parameters), comment, siblings)
        except BaseException:
            _sweep(folder)
            raise
        try:
            script.replace(JobPaths(folder, job_id).submission_file)
            for task_id, pickle in zip(task_ids(job_id, tasks), pickles, strict=True):
                pickle.replace(JobPaths(folder, task_id).submitted_pickle)
            if "hold" not in parameters["additional_parameters"]:
                command(["scontrol", "uhold", job_id])
                command(["scontrol", "update", f"JobId={job_id}", "StartTime=now"])
        except BaseException:
            cancel_ids([job_id])
            raise
    return job_id


def _pickles(
    folder: Path, minutes: int, tasks: int, function: Callable[..., object], args: Sequence[object]
) -> list[Path]:
    """One file per task with what it runs, for submitit, which looks for it under the task's id."""
    from submitit.core.utils import DelayedSubmission

    paths = [folder / f"{uuid.uuid4().hex}.pkl" for _ in range(tasks)]
    for path in paths:
        what = DelayedSubmission(function, *args)
        what.set_timeout(minutes, _TIMEOUTS)
        what.dump(path)
    return paths


def _sbatch(script: Path, request: str, comment: str, siblings: Collection[str]) -> str:
    """Submit a script; the id of its job. Raises UsageError when sbatch refuses it, ExternalError without an id.

    Whatever is printed, and whatever exit code a wrapper or a lost answer gives, the job with this submit's comment in
    the queue is the one. What is printed counts where none is there: the site may change comments, or the queue be a
    copy of a minute ago.
    """
    done = run(["sbatch", "--parsable", str(script)], _SBATCH_S)
    queue_problem = ""
    try:
        queued = _id_by_comment(comment, siblings)
    except (ExternalError, UsageError) as error:
        queued, queue_problem = None, str(error)
    if done.returncode and queued is None:
        raise refusal("sbatch", done.stderr or done.stdout, request)
    if done.returncode:
        said = one_line(done.stderr or done.stdout) or "nothing"
        print(
            f"warning: sbatch ended with exit code {done.returncode}, but SLURM has taken the job: {queued}; it says: "
            f"{shorten(said, 200)}",
            file=sys.stderr,
        )
    job_id = queued or id_in_answer(done.stdout)
    if job_id is None:
        said = one_line(done.stdout) or "nothing"
        looked = "no job of this submit is in the queue"
        if queue_problem:
            looked = f"the queue can't be asked for it ({queue_problem})"
        raise ExternalError(f"sbatch gave an answer without a job id, and {looked}; it says: {said}")
    return job_id


def id_in_answer(text: str) -> str | None:
    """The job id in what sbatch printed; None where no line of it, or more than one, is an id.

    A cluster's wrapper may print other lines around it, with any numbers in them, or not pass `--parsable` on. An id on
    another cluster (`7;other`) is none: the commands here would take it for a job of this one.
    """
    found = {match[1] or match[2] for line in text.splitlines() if (match := _ANSWER.fullmatch(line.strip()))}
    return found.pop() if len(found) == 1 else None


def _id_by_comment(comment: str, siblings: Collection[str]) -> str | None:
    """The one job or array in my queue that has this comment, `siblings` left out."""
    if not comment:
        return None
    found = ids_by_comment([comment]).get(comment, [])
    arrays = {job_id.partition("_")[0] for job_id in found} - set(siblings)
    return arrays.pop() if len(arrays) == 1 else None


def ids_by_comment(comments: Collection[str]) -> dict[str, list[str]]:
    """The ids of my jobs and array tasks in the queue that have one of these comments, by comment.

    Raises ExternalError and UsageError when SLURM can't be asked.
    """
    ids: dict[str, list[str]] = {}
    for line in command(["squeue", "--noheader", "--me", "--format=%i|%k"]).splitlines():
        job_id, _, comment = line.strip().partition("|")
        if comment in comments and (tasks := expand_tasks(job_id)):
            ids.setdefault(comment, []).extend(tasks)
    return ids


def _sweep(folder: Path) -> None:
    """Remove what submitit leaves of a job that was refused. The folder's lock is to be held."""
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name) and not path.is_symlink():
            path.unlink(missing_ok=True)


def release(job_id: str) -> None:
    """Let a held job start as soon as SLURM has a place. Raises UsageError and ExternalError."""
    command(["scontrol", "release", _checked(job_id)])


def cancel_ids(job_ids: Sequence[str]) -> None:
    """Cancel jobs and array tasks; those that are over are passed by. Raises UsageError, ExternalError."""
    _scancel(job_ids)


def signal_ids(job_ids: Sequence[str], name: str) -> None:
    """Send a signal (`USR1`) to the processes of jobs that run, not to their batch scripts, which it would end.

    Those that are over are passed by. Raises UsageError, ExternalError.
    """
    _scancel(job_ids, f"--signal={name}")


def _scancel(job_ids: Sequence[str], *options: str) -> None:
    if not job_ids:
        return
    done = run(["scancel", *options, *(_checked(job_id) for job_id in job_ids)])
    complaints = [line for line in done.stderr.splitlines() if line.strip() and not _GONE_ALREADY.search(line)]
    if done.returncode and complaints:
        raise refusal("scancel", "\n".join(complaints), " ".join(job_ids))


def running_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """The id of the SLURM job that this process is part of, as job folders name it; None outside of one."""
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return environ.get("SLURM_JOB_ID") or None


def _checked(job_id: str) -> str:
    """Raises UsageError for what is no id: it would be an option to the command."""
    if not is_slurm_id(job_id):
        raise UsageError(f"{job_id!r} is no SLURM job id (1971498, or 1971498_3 for an array task)")
    return job_id


def _request(parameters: Mapping[str, object]) -> str:
    shown = ("partition", "gres", "cpus_per_task", "mem", "time")
    return ", ".join(f"{name} {parameters[name]}" for name in shown if name in parameters)


T = TypeVar("T")
DEFAULT_MAX_ARRAY_SIZE = 1001


def max_array_size() -> int:
    """How many tasks an array of this cluster may have; SLURM's default where it does not say.

    MaxArraySize is one more than the highest task number, and arrays begin at 0. Raises ExternalError when
    SLURM does not answer.
    """
    match = re.search(r"^MaxArraySize\s*=\s*([0-9]+)", command(["scontrol", "show", "config"]), re.MULTILINE)
    return max(1, int(match[1])) if match else DEFAULT_MAX_ARRAY_SIZE


def even_chunks(items: Sequence[T], most: int) -> list[list[T]]:
    """The items in order, in as few parts as hold at most `most` each, of nearly one size."""
    parts = math.ceil(len(items) / most)
    bounds = [len(items) * part // parts for part in range(parts + 1)]
    return [list(items[start:end]) for start, end in itertools.pairwise(bounds)]


def task_ids(array_id: str, count: int) -> list[str]:
    """The job ids of the tasks; an array of one is no array."""
    return [array_id] if count == 1 else [f"{array_id}_{task}" for task in range(count)]


_MARK = re.compile(r"tdmpc-lab-[0-9a-f]{16}")
_ENDING = ".submit"


@dataclass(frozen=True)
class Unfinished:
    """A job or array that is in the queue, held, because its submit ended before it was released."""

    id: str
    recorded: bool
    """Whether all its tasks have their record: then they are jobs like others, which wait for their release."""

    @property
    def cause(self) -> str:
        """Why it is there without a whole record, and what to do."""
        return (
            "in SLURM's queue without a whole record: its submit was interrupted. It does not start; "
            f"remove it: tdmpc-lab cancel {self.id}"
        )


def is_mark(comment: str) -> bool:
    """Whether a job with this comment was submitted by this tool."""
    return _MARK.fullmatch(comment) is not None


@contextlib.contextmanager
def submitting(project: Project) -> Iterator[str]:
    """The mark to be put into the comment of what is submitted within.

    Leaving it with an exception, or not at all, leaves a file that has `unfinished` look into the queue.
    """
    mark = f"tdmpc-lab-{secrets.token_hex(8)}"
    path = submit_folder(project) / f"{mark}{_ENDING}"
    make_folder(path.parent, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield mark
        path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def unfinished(project: Project) -> list[Unfinished]:
    """What interrupted submits of this project left in the queue. SLURM is asked only if there were any.

    Raises ExternalError and UsageError when SLURM can't be asked.
    """
    marks = {path.name.removesuffix(_ENDING): path for path in _abandoned(project)}
    if not marks:
        return []
    found = ids_by_comment(marks)
    tasks: dict[str, list[str]] = {}
    for job_id in itertools.chain(*found.values()):
        tasks.setdefault(job_id.partition("_")[0], []).append(job_id)
    for mark in marks.keys() - found:
        marks[mark].unlink(missing_ok=True)
    return [Unfinished(job_id, all(is_recorded(project, task) for task in ids)) for job_id, ids in tasks.items()]


def _abandoned(project: Project) -> list[Path]:
    """The files of this user's submits whose process is gone: what colleagues submitted is theirs to look for."""
    found = []
    for path in sorted(submit_folder(project).glob(f"*{_ENDING}")):
        if not _MARK.fullmatch(path.name.removesuffix(_ENDING)):
            continue
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_uid != os.getuid():
                continue
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            found.append(path)
    return found
