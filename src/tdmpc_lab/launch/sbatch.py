"""What a job asks SLURM for, and the sbatch script that says so; pure but for submitit's import.

Also here: the command that runs the job's Python: this one, or that of a container's image. Pure.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tdmpc_lab.config.schema import ContainerConfig, SlurmConfig
from tdmpc_lab.errors import SpecError
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch.options import KNOWN_OPTIONS, MEMORY_INSTEAD, extra_options, option_problems
from tdmpc_lab.launch.process import Workplace
from tdmpc_lab.streams import UTF8_STREAMS

BEGIN = "now+52weeks"  # should submit be killed before the job is held
_OWN_TIME = frozenset({"begin", "deadline"})
DEFAULT_MEMORY = "16G"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# When the batch script began. SLURM itself tells its scripts only since version 23.
_START_VARIABLE = "TDMPC_LAB_SCRIPT_START"
_START_LINE = f"export {_START_VARIABLE}=$(date +%s)"
_WARN_S = 90  # SLURM's USR2 comes this long before the time limit, or a quarter of a short one

# How the job's process ends when SLURM is to do something. The batch script does it, not the process: in a
# container there is no scontrol.
REQUEUE_CODE, CANCEL_CODE = 85, 86
_AFTERWARDS = (
    "code=$?",
    'if [ -n "$reached" ] && [ ! -s "/dev/fd/$reached" ]; then',
    '    echo "tdmpc-lab: the job was not begun: the lines before it (slurm.setup) ended with exit code $code" >&2',
    f'    case "$code" in 0|{REQUEUE_CODE}|{CANCEL_CODE}) code=1;; esac',
    "fi",
    # The SLURM_JOB_ID of an array's last task is the array's own id, which would mean all its tasks.
    'job="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"',
    'job="${job:-$SLURM_JOB_ID}"',
    f'if [ "$code" -eq {REQUEUE_CODE} ]; then exec scontrol requeue "$job"; fi',
    f'if [ "$code" -eq {CANCEL_CODE} ]; then exec scancel "$job"; fi',
    'exit "$code"',
)
# What decides over the job's life stands outside of a subshell, and all lines of the user inside it: what they set
# ends with it. The node's own start-up files may set such things, too: `set -e` (BASH_ENV), or variables that are
# options to the commands used here.
# The file behind `reached` has no name any more; it is written when all those lines are through.
_OPEN = (
    "set +eu",
    "unset ${!SRUN_@} ${!SCONTROL_@} ${!SCANCEL_@}",
    _START_LINE,
    "reached=",
    'if file=$(mktemp 2> /dev/null); then exec {reached}<> "$file"; rm -f "$file"; fi',
    "(",
)
_REACHED = '[ -z "$reached" ] || echo yes >&"$reached"'
# Their `set -e` and their traps see no failure of srun, and a trap that cleans up at the end runs apart: with an `exit`
# of its own it would be in the place of the job's exit code.
_CODE = "tdmpc_lab_code"
_KEEP_CODE = f"|| {_CODE}=$?"
_CLOSE = (
    "tdmpc_lab_at_exit=$(trap -p EXIT)",
    f'( eval "$tdmpc_lab_at_exit"; builtin exit "${_CODE}" ) || :',
    "trap - EXIT",
    f'builtin exit "${_CODE}"',
    ")",
)


def submit_folder(project: Project) -> Path:
    """Where submitit keeps scripts, pickles and logs of all SLURM jobs.

    One plain folder: in a folder named after the job, a job that starts at once finds no place for its log.
    """
    return project.jobs / ".submitit"


def slurm_parameters(config: SlurmConfig, job_name: str, comment: str) -> dict[str, Any]:
    """The parameters for submitit's SlurmExecutor.

    Minutes are rounded up; options that are false are left out. Whether sbatch knows an extra option is left
    to it here. Raises SpecError for an extra option that can't be used.
    """
    extra = extra_options(config)
    problems = option_problems(config, KNOWN_OPTIONS | set(extra))
    if problems:
        raise SpecError(problems)
    parameters: dict[str, Any] = {
        "job_name": job_name,
        "comment": " ".join(comment.split()) or None,
        "partition": config.partition,
        "time": _minutes(config),
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": config.cpus,
        "mem": memory_asked_for(config),
        "gres": None if config.gpus is None else f"gpu:{config.gpus}",
        "account": config.account,
        "qos": config.qos,
        "constraint": config.constraint,
        "exclude": config.exclude,
        "nodelist": config.nodelist,
        "dependency": dependency(config.after),
        "mail_type": ",".join(config.mail.types) if config.mail else None,
        "mail_user": config.mail.user if config.mail else None,
        "setup": [
            *_OPEN,
            *stream_lines(),
            *thread_lines(config.cpus),
            *_of_the_user(config),
            *container_setup(config),
            f"{_CODE}=0",
            _REACHED,
        ],
        "teardown": [*_CLOSE, *_AFTERWARDS],
        "signal_delay_s": warning_s(config),
        # From 22.05 on srun no longer takes the CPUs over from sbatch. What sbatch's own --export left out, srun would
        # take from the script's environment as well, and all that the script sets for the job with it.
        "srun_args": [f"--cpus-per-task={config.cpus}", "--export=ALL"],
        "additional_parameters": {**extra, "requeue": True},
    }
    wanted = {name: value for name, value in parameters.items() if value is not None}
    return {**wanted, "wckey": None}  # submitit sets one, which clusters that use them refuse


def _of_the_user(config: SlurmConfig) -> list[str]:
    """The lines of `slurm.setup`; an empty one behind them ends a last line that ends in a backslash."""
    return [*config.setup, ""] if config.setup else []


def _minutes(config: SlurmConfig) -> int:
    return max(1, math.ceil(config.time.total_seconds() / 60))


def warning_s(config: SlurmConfig) -> int:
    """Seconds between SLURM's USR2 and the time limit: what a job has to save and to say so."""
    return min(_WARN_S, _minutes(config) * 60 // 4)


def memory_asked_for(config: SlurmConfig) -> str | None:
    """The job's memory; None where it is asked for in another way, by CPU or by GPU."""
    elsewhere = any(name in MEMORY_INSTEAD for name in extra_options(config))
    return config.memory or (None if elsewhere else DEFAULT_MEMORY)


def thread_lines(cpus: int) -> list[str]:
    """As many threads as CPUs: libraries count the node's otherwise, or take what the login shell had set."""
    return [f"export {name}={cpus}" for name in _THREADS]


def stream_lines() -> list[str]:
    """The job's log files are UTF-8 in whatever locale the login shell or the node is."""
    return [f"export {name}={value}" for name, value in UTF8_STREAMS.items()]


def attempt_start(environ: Mapping[str, str]) -> datetime | None:
    """When the batch script of this process began, before any `setup` line; None outside of one."""
    text = environ.get(_START_VARIABLE, "")
    return datetime.fromtimestamp(int(text), UTC) if text.isascii() and text.isdigit() and len(text) < 12 else None


def dependency(after: Sequence[str]) -> str | None:
    """`afterok:7,afterany:8` for sbatch; a bare id waits for a good end."""
    return ",".join(job if ":" in job else f"afterok:{job}" for job in after) or None


def held_parameters(
    project: Project,
    config: SlurmConfig,
    job_name: str,
    comment: str,
    workplace: Workplace | None = None,
    tasks: int = 1,
) -> dict[str, Any]:
    """As `slurm_parameters`, for a job that does not start yet, or a job array of several `tasks`.

    Its script and the `setup` lines run in the project's folder, the job itself at its workplace, if it has one.

    It is to begin far in the future, and is held as soon as it has an id: sbatch takes a job with `--hold`
    without a look at what it asks for, and such a job then waits for ever for a GPU that does not exist. A
    job with a time of its own (`begin`, or a `deadline`, which must not be before the begin) has to be held that way.
    """
    parameters = slurm_parameters(config, job_name, comment)
    extra = parameters["additional_parameters"]
    wait = {"hold": True} if extra.keys() & _OWN_TIME else {"begin": BEGIN}
    if workplace is not None:  # after the user's own lines, which may set PYTHONPATH and are written for the project
        parameters["setup"] = [*parameters.get("setup", []), *workplace.shell_lines()]
    if tasks > 1:  # submitit lets 256 run at once unless told otherwise
        parameters["array_parallelism"] = config.array_limit or tasks
    return {**parameters, "additional_parameters": {**extra, **wait, "chdir": str(project.root)}}


def sbatch_script(
    project: Project,
    config: SlurmConfig,
    name: str,
    comment: str = "",
    workplace: Workplace | None = None,
    tasks: int = 1,
) -> str:
    """The script that a submit would hand to sbatch. Needs no SLURM here. Raises SpecError."""
    return script_text(project, config, held_parameters(project, config, name, comment, workplace, tasks), tasks)


def script_text(project: Project, config: SlurmConfig, parameters: Mapping[str, Any], tasks: int) -> str:
    """The script for `held_parameters`, as submitit writes it."""
    from submitit.slurm.slurm import _make_sbatch_string

    folder = submit_folder(project).absolute()
    command = (
        f"{python_command(config, project.root)} -u -m submitit.core._submit {shlex.quote(str(folder))} {_KEEP_CODE}"
    )
    if tasks > 1:
        parameters = {**parameters, "map_count": tasks}
    return str(_make_sbatch_string(command=command, folder=folder, **parameters))


RUNTIMES = ("apptainer", "singularity")
_RUNTIME_VARIABLE = "TDMPC_LAB_CONTAINER"
_URI = re.compile(r"[a-z][a-z0-9+.-]*://")


def python_command(config: SlurmConfig, root: Path, environ: Mapping[str, str] = os.environ) -> str:
    """What is typed before `-m …` to start the job's Python, for a shell; `root` is the project's folder."""
    container = config.container
    if container is None:
        return shlex.quote(sys.executable)
    runtime = f'"${_RUNTIME_VARIABLE}"' if container.runtime == "auto" else container.runtime
    options = ["--nv"] if container.nv else []
    for bind in (*container.bind, str(root)):
        options += ["--bind", filled_in(bind, environ)]
    image = image_path(container, root, environ)
    return f"{runtime} exec {shlex.join([*options, image, container.python])}"


def container_setup(config: SlurmConfig) -> list[str]:
    """Shell lines that find the container's runtime on the node, after the lines of the spec (`module load …`)."""
    container = config.container
    if container is None:
        return []
    source = Path(__file__).resolve().parents[2]
    lines = []
    if source.name == "src":  # the image holds what the project depends on, the project itself is read from here
        lines.append(f'export PYTHONPATH={shlex.quote(str(source))}"${{PYTHONPATH:+:$PYTHONPATH}}"')
    if container.runtime == "auto":
        asked = " || ".join(f"command -v {name}" for name in RUNTIMES)
        complaint = f"neither {' nor '.join(RUNTIMES)} is on this node: load its module in slurm.setup"
        lines.append(f'{_RUNTIME_VARIABLE}=$({asked}) || {{ echo "{complaint}" >&2; exit 127; }}')
    return lines


def image_path(container: ContainerConfig, root: Path, environ: Mapping[str, str] = os.environ) -> str:
    """The image as an absolute path, or the URI that it is."""
    text = filled_in(container.image, environ)
    return text if is_uri(text) else str(root / text)


def is_uri(image: str) -> bool:
    """Whether the image is fetched from somewhere (`docker://…`) and is no file."""
    return _URI.match(image) is not None


def filled_in(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text with `~` and `$NAME` of the shell that submits; names that are not set stay."""
    home = environ.get("HOME", "")
    if home and (text == "~" or text.startswith("~/")):
        text = home + text[1:]
    return re.sub(r"\$(\w+|\{\w+\})", lambda found: environ.get(found[1].strip("{}"), found[0]), text)
