"""Jobs in SLURM: submitted through submitit, released, signalled, cancelled."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tdmpc_lab.config.schema import SlurmConfig
from tdmpc_lab.errors import ExternalError, LabError, UsageError
from tdmpc_lab.files import file_lock
from tdmpc_lab.jobs.ids import is_slurm_id
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch.commands import command, refusal, run
from tdmpc_lab.launch.container import python_command
from tdmpc_lab.launch.environment import Workplace, clean_process_environment
from tdmpc_lab.launch.sbatch import held_parameters, submit_folder
from tdmpc_lab.sharing import make_folder

_LEFTOVER = re.compile(r"\.submission_file_[0-9a-f]{32}\.sh|[0-9a-f]{32}\.pkl")
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
) -> str:
    """Hand a job to SLURM, held: it starts after `release`, when its folder is complete. Returns its id.

    Several `tasks` are one job array, and the id is the array's. `after` is a job or array that has to be over.

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
    folder = submit_folder(project)
    make_folder(folder, exist_ok=True)  # scripts, pickles and logs are nobody else's business
    with file_lock(folder / ".lock"):
        try:
            job_id = _sbatch(folder, parameters, python_command(config, project.root), tasks, function, args)
        except LabError:
            _sweep(folder)
            raise
    if "hold" not in parameters["additional_parameters"]:
        try:
            command(["scontrol", "uhold", job_id])
            command(["scontrol", "update", f"JobId={job_id}", "StartTime=now"])
        except LabError:
            cancel_ids([job_id])
            raise
    return job_id


def _sbatch(
    folder: Path,
    parameters: Mapping[str, Any],
    python: str,
    tasks: int,
    function: Callable[..., object],
    args: Sequence[object],
) -> str:
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        # What sbatch says is in the error; submitit would print it as well.
        with clean_process_environment(), contextlib.redirect_stderr(io.StringIO()):
            executor = SlurmExecutor(folder, python=python)
            executor.update_parameters(**parameters)
            with executor.batch():  # of one job, submitit makes no array
                jobs = [executor.submit(function, *args) for _ in range(tasks)]
            return str(jobs[0].job_id).partition("_")[0]
    except FailedSubmissionError as error:
        raise ExternalError(f"sbatch gave an answer without a job id: {error}") from error
    except FailedJobError as error:
        raise refusal("sbatch", str(error), _request(parameters)) from error


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
