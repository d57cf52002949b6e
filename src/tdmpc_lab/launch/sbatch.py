"""What a job asks SLURM for, and the sbatch script that says so; pure but for submitit's import."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import Any

from tdmpc_lab.config.schema import SlurmConfig
from tdmpc_lab.errors import Problem, SpecError
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch.environment import Workplace

# Options with a key of their own in the spec.
_OWN_KEYS = {
    "partition": "slurm.partition",
    "time": "slurm.time",
    "cpus-per-task": "slurm.cpus",
    "mem": "slurm.memory",
    "gres": "slurm.gpus",
    "job-name": "name",
    "comment": "about",
}
# Options that the submission needs for itself, and why.
_TAKEN = {
    "output": "the log is log.out in the job's folder",
    "error": "the log is log.err in the job's folder",
    "open-mode": "the log of a second attempt is appended",
    "signal": "the job is warned before its time limit",
    "hold": "every job is submitted held, and released when its folder is complete",
    "chdir": "jobs run in the project's folder",
    "wrap": "the script is written by this tool",
    "array": "several jobs are several submits",
    "nodes": "a job is one process on one node",
    "ntasks": "a job is one process on one node",
    "ntasks-per-node": "a job is one process on one node",
    "parsable": "the answer of sbatch is read",
    "quiet": "the answer of sbatch is read",
    "test-only": "use submit's --dry-run",
    "wait": "submit does not wait",
    "requeue": "a job is always started again after a preemption; for its time limit set slurm.max_requeues",
    "no-requeue": "a job is always started again after a preemption; for its time limit set slurm.max_requeues",
}
BEGIN = "now+1hour"
_MEMORY_INSTEAD = ("mem-per-cpu", "mem-per-gpu")
_GPUS_INSTEAD = ("gpus", "gpus-per-node", "gpus-per-task")
_WARN_S = 90  # SLURM's USR2 comes this long before the time limit, or a quarter of a short one

# How the job's process ends when SLURM is to do something. The batch script does it, not the process: in a
# container there is no scontrol.
REQUEUE_CODE, CANCEL_CODE = 85, 86
_AFTERWARDS = (
    "code=$?",
    f'if [ "$code" -eq {REQUEUE_CODE} ]; then exec scontrol requeue "$SLURM_JOB_ID"; fi',
    f'if [ "$code" -eq {CANCEL_CODE} ]; then exec scancel "$SLURM_JOB_ID"; fi',
    'exit "$code"',
)


def submit_folder(project: Project) -> Path:
    """Where submitit keeps scripts, pickles and logs of all SLURM jobs.

    One plain folder: in a folder named after the job, a job that starts at once finds no place for its log.
    """
    return project.jobs / ".submitit"


def extra_problems(config: SlurmConfig, file: str = "spec") -> list[Problem]:
    """What is wrong with `slurm.extra`: options that have a key of their own, or that the submission sets."""
    problems = []
    for option, value in config.extra.items():
        name = option.replace("_", "-")
        message = hint = ""
        if name in _OWN_KEYS:
            message, hint = f"--{name} has a key of its own", f"set {_OWN_KEYS[name]} instead"
        elif name in _TAKEN:
            message, hint = f"--{name} is set by the submission itself", _TAKEN[name]
        elif name in _GPUS_INSTEAD and config.gpus is not None:
            message, hint = f"--{name} and slurm.gpus ask for GPUs twice", "leave one of them out"
        elif not name.replace("-", "").isalnum() or not name.isascii() or name.startswith("-"):
            message, hint = f"{option!r} is no sbatch option", "write its long name without the dashes"
        elif "\n" in str(value) or "\r" in str(value):
            message, hint = "a value of several lines can't stand in an sbatch script", "write it on one line"
        if message:
            problems.append(Problem(file=file, line=None, key=f"slurm.extra.{option}", message=message, hint=hint))
    return problems


def slurm_parameters(config: SlurmConfig, job_name: str, comment: str) -> dict[str, Any]:
    """The parameters for submitit's SlurmExecutor.

    Minutes are rounded up; options that are false are left out; `mem-per-cpu` or `mem-per-gpu` among the
    extra options takes the place of `memory`. Raises SpecError for an extra option that can't be used.
    """
    problems = extra_problems(config)
    if problems:
        raise SpecError(problems)
    extra = {name.replace("_", "-"): value for name, value in config.extra.items() if value is not False}
    parameters: dict[str, Any] = {
        "job_name": job_name,
        "comment": " ".join(comment.split()) or None,
        "partition": config.partition,
        "time": _minutes(config),
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": config.cpus,
        "mem": None if any(name in extra for name in _MEMORY_INSTEAD) else config.memory,
        "gres": None if config.gpus is None else f"gpu:{config.gpus}",
        "setup": list(config.setup) or None,
        "teardown": list(_AFTERWARDS),
        "signal_delay_s": warning_s(config),
        # From 22.05 on srun no longer takes this over from sbatch.
        "srun_args": [f"--cpus-per-task={config.cpus}"],
        "additional_parameters": {**extra, "requeue": True},
    }
    wanted = {name: value for name, value in parameters.items() if value is not None}
    return {**wanted, "wckey": None}  # submitit sets one, which clusters that use them refuse


def _minutes(config: SlurmConfig) -> int:
    return max(1, math.ceil(config.time.total_seconds() / 60))


def warning_s(config: SlurmConfig) -> int:
    """Seconds between SLURM's USR2 and the time limit: what a job has to save and to say so."""
    return min(_WARN_S, _minutes(config) * 60 // 4)


def held_parameters(
    project: Project, config: SlurmConfig, job_name: str, comment: str, workplace: Workplace | None = None
) -> dict[str, Any]:
    """As `slurm_parameters`, for a job that does not start yet.

    Its script and the `setup` lines run in the project's folder, the job itself at its workplace, if it has one.

    It is to begin far in the future, and is held as soon as it has an id: sbatch takes a job with `--hold`
    without a look at what it asks for, and such a job then waits for ever for a GPU that does not exist. A
    job with a `begin` of its own has to be held that way.
    """
    parameters = slurm_parameters(config, job_name, comment)
    extra = parameters["additional_parameters"]
    wait = {"hold": True} if "begin" in extra else {"begin": BEGIN}
    if workplace is not None:  # after the user's own lines, which may set PYTHONPATH and are written for the project
        parameters["setup"] = [*parameters.get("setup", []), *workplace.shell_lines()]
    return {**parameters, "additional_parameters": {**extra, **wait, "chdir": str(project.root)}}


def sbatch_script(
    project: Project, config: SlurmConfig, name: str, comment: str = "", workplace: Workplace | None = None
) -> str:
    """The script that a submit would hand to sbatch. Needs no SLURM here. Raises SpecError."""
    from submitit.slurm.slurm import _make_sbatch_string

    folder = submit_folder(project).absolute()
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    parameters = held_parameters(project, config, name, comment, workplace)
    return str(_make_sbatch_string(command=command, folder=folder, **parameters))
