"""Jobs in SLURM: submitting through submitit, and asking squeue for all of them at once."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tdmpc_lab.config.schema import SlurmConfig
from tdmpc_lab.errors import ExternalError, LabError, UsageError
from tdmpc_lab.files import file_lock
from tdmpc_lab.jobs.ids import is_slurm_id
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.state import SchedulerState
from tdmpc_lab.launch.environment import Workplace, clean_environment, clean_process_environment
from tdmpc_lab.launch.sbatch import held_parameters, submit_folder

_TIMEOUT_S = 60.0
_SQUEUE = ("squeue", "--noheader", "--array", "--format=%i|%T|%r", "--states=all", "--me")
_WAITS = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
_RUNS = frozenset(
    {"RUNNING", "CONFIGURING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"}
)
# What sbatch and its like say when it is not the job's fault.
_UNREACHABLE = re.compile(
    r"unable to contact slurm|connect failure|connection refused|timed out|unexpected message|"
    r"zero bytes were transmitted|munge|credential|could not establish|configuration source",
    re.IGNORECASE,
)
_LEFTOVER = re.compile(r"\.submission_file_[0-9a-f]{32}\.sh|[0-9a-f]{32}\.pkl")
_GONE_ALREADY = re.compile(r"invalid job id|already completing or completed", re.IGNORECASE)


def has_sbatch() -> bool:
    """Whether SLURM's commands are on this machine."""
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def submit_held(
    project: Project,
    config: SlurmConfig,
    name: str,
    function: Callable[..., object],
    *args: object,
    comment: str = "",
    workplace: Workplace | None = None,
) -> str:
    """Hand a job to SLURM, held: it starts after `release`, when its folder is complete. Returns its id.

    Raises SpecError for options that can't be used, UsageError when sbatch refuses the job, ExternalError
    when there is no SLURM here or it does not answer. Nothing is left in the queue then.
    """
    parameters = held_parameters(project, config, name, comment, workplace)
    if not has_sbatch():
        raise ExternalError(
            "SLURM is not on this machine: there is no sbatch or srun. "
            "Submit from the cluster's login node, or use --cluster local"
        )
    folder = submit_folder(project)
    with file_lock(folder / ".lock"):
        try:
            job_id = _sbatch(folder, parameters, function, args)
        except LabError:
            _sweep(folder)
            raise
    if "hold" not in parameters["additional_parameters"]:
        try:
            _command(["scontrol", "uhold", job_id])
            _command(["scontrol", "update", f"JobId={job_id}", "StartTime=now"])
        except LabError:
            cancel_ids([job_id])
            raise
    return job_id


def _sbatch(
    folder: Path, parameters: Mapping[str, Any], function: Callable[..., object], args: Sequence[object]
) -> str:
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        # What sbatch says is in the error; submitit would print it as well.
        with clean_process_environment(), contextlib.redirect_stderr(io.StringIO()):
            executor = SlurmExecutor(folder)
            executor.update_parameters(**parameters)
            return str(executor.submit(function, *args).job_id)
    except FailedSubmissionError as error:
        raise ExternalError(f"sbatch gave an answer without a job id: {error}") from error
    except FailedJobError as error:
        raise _refusal("sbatch", str(error), _request(parameters)) from error


def _sweep(folder: Path) -> None:
    """Remove what submitit leaves of a job that was refused. The folder's lock is to be held."""
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name) and not path.is_symlink():
            path.unlink(missing_ok=True)


def release(job_id: str) -> None:
    """Let a held job start as soon as SLURM has a place. Raises UsageError and ExternalError."""
    _command(["scontrol", "release", _checked(job_id)])


def cancel_ids(job_ids: Sequence[str]) -> None:
    """Cancel jobs and array tasks; those that are over are passed by. Raises UsageError, ExternalError."""
    if not job_ids:
        return
    command = ["scancel", *(_checked(job_id) for job_id in job_ids)]
    done = _run(command)
    complaints = [line for line in done.stderr.splitlines() if line.strip() and not _GONE_ALREADY.search(line)]
    if done.returncode and complaints:
        raise _refusal("scancel", "\n".join(complaints), " ".join(job_ids))


def slurm_states(job_ids: Sequence[str]) -> dict[str, SchedulerState]:
    """What SLURM says about these jobs, by one call of squeue, which knows a job for minutes after its end.

    Never raises for want of SLURM: then every job is UNREACHABLE, with the reason.
    """
    if not job_ids:
        return {}
    try:
        done = _run(_SQUEUE)
        if done.returncode:
            raise _refusal("squeue", done.stderr, "")
    except (ExternalError, UsageError) as error:
        reason = str(error).splitlines()[0]
        return {job_id: SchedulerState("UNREACHABLE", reason) for job_id in job_ids}
    known = parse_squeue(done.stdout)
    return {job_id: known.get(job_id, SchedulerState("GONE")) for job_id in job_ids}


def parse_squeue(text: str) -> dict[str, SchedulerState]:
    """States by job id from squeue's lines `id|state|reason`; lines that mean nothing here are left out."""
    states: dict[str, SchedulerState] = {}
    for line in text.splitlines():
        parts = line.strip().split("|", 2)
        if len(parts) != 3:
            continue
        state = _state(parts[1], parts[2])
        for job_id in _expand(parts[0]):
            # While a job is requeued there can be two lines: the one that goes on counts.
            if job_id not in states or states[job_id].state == "GONE":
                states[job_id] = state
    return states


def _state(word: str, reason: str) -> SchedulerState:
    reason = "" if reason in ("None", "(null)") else reason
    if word in _WAITS:
        return SchedulerState("PENDING", reason)
    if word in _RUNS:
        return SchedulerState("RUNNING", "" if word == "RUNNING" else word)
    # The end in SLURM's own word; the reason mostly repeats it (TimeLimit, NonZeroExitCode).
    return SchedulerState("GONE", f"{word} ({reason})" if reason else word)


def _expand(text: str) -> list[str]:
    """`7` and `7_3` as they are, `7_[0-2,5%2]` (tasks that wait) as its tasks; nothing for anything else."""
    if is_slurm_id(text):
        return [text]
    match = re.fullmatch(r"(\d+)_\[([\d,\-]+)(?:%\d+)?\]", text)
    if match is None:
        return []
    tasks: list[str] = []
    for part in match[2].split(","):
        low, _, high = part.partition("-")
        if not low.isdecimal() or not (high or low).isdecimal() or int(high or low) - int(low) > 100_000:
            continue
        tasks += [f"{match[1]}_{task}" for task in range(int(low), int(high or low) + 1)]
    return tasks


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


def _command(command: Sequence[str]) -> None:
    done = _run(command)
    if done.returncode:
        raise _refusal(command[0], done.stderr or done.stdout, " ".join(command[1:]))


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Raises ExternalError when the command is missing or hangs."""
    try:
        return subprocess.run(
            command,
            env=clean_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise ExternalError(f"{command[0]} is not on this machine; go to the cluster's login node") from None
    except subprocess.TimeoutExpired:
        raise ExternalError(f"{command[0]} gave no answer in {_TIMEOUT_S:.0f} s; try again later") from None


def _refusal(command: str, words: str, about: str) -> ExternalError | UsageError:
    """The error for what a SLURM command said, in its own words."""
    said = " / ".join(line.strip() for line in words.splitlines() if line.strip()) or "nothing"
    if _UNREACHABLE.search(said):
        return ExternalError(f"SLURM does not answer; try again later. {command} says: {said}")
    asked = f" ({about})" if about else ""
    hint = "; change the slurm section of the spec" if command == "sbatch" else ""
    return UsageError(f"{command} refused{asked}: {said}{hint}")


def _request(parameters: Mapping[str, object]) -> str:
    shown = ("partition", "gres", "cpus_per_task", "mem", "time")
    return ", ".join(f"{name} {parameters[name]}" for name in shown if name in parameters)
