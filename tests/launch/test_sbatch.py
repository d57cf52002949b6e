from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import tdmpc_lab
from tdmpc_lab.config.schema import ContainerConfig, MailConfig, SlurmConfig
from tdmpc_lab.errors import SpecError
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch.options import is_abbreviated, option_problems
from tdmpc_lab.launch.process import Workplace
from tdmpc_lab.launch.sbatch import attempt_start, container_setup, python_command, sbatch_script, slurm_parameters

CONFIG = SlurmConfig(
    partition="day",
    gpus="2080ti:1",
    cpus=4,
    memory="16G",
    time=timedelta(hours=24, seconds=1),
    setup=("module load cuda", "export X='a b'"),
    extra={"qos": "high", "mail_type": "END,FAIL", "exclusive": True, "contiguous": False, "nice": 5},
)
RUNTIME = (
    "TDMPC_LAB_CONTAINER=$(command -v apptainer || command -v singularity) || "
    '{ echo "neither apptainer nor singularity is on this node: load its module in slurm.setup" >&2; exit 127; }'
)
FIRST = [
    "set +eu",
    "unset ${!SRUN_@} ${!SCONTROL_@} ${!SCANCEL_@}",
    "export TDMPC_LAB_SCRIPT_START=$(date +%s)",
    "reached=",
    'if file=$(mktemp 2> /dev/null); then exec {reached}<> "$file"; rm -f "$file"; fi',
    "(",
    "export PYTHONIOENCODING=utf-8:backslashreplace",
    *(f"export {name}_NUM_THREADS=4" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")),
]


TOLD = "tdmpc-lab: the job was not begun: the lines before it (slurm.setup) ended with exit code"
LAST = ["tdmpc_lab_code=0", '[ -z "$reached" ] || echo yes >&"$reached"']


def test_what_a_job_asks_for() -> None:
    assert slurm_parameters(CONFIG, "quickstart", "two\n lines") == {
        "job_name": "quickstart",
        "comment": "two lines",
        "partition": "day",
        "time": 1441,  # minutes, rounded up
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": 4,
        "mem": "16G",
        "gres": "gpu:2080ti:1",
        "setup": [*FIRST, "module load cuda", "export X='a b'", "", *LAST],
        "teardown": [
            "tdmpc_lab_at_exit=$(trap -p EXIT)",
            '( eval "$tdmpc_lab_at_exit"; builtin exit "$tdmpc_lab_code" ) || :',
            "trap - EXIT",
            'builtin exit "$tdmpc_lab_code"',
            ")",
            "code=$?",
            'if [ -n "$reached" ] && [ ! -s "/dev/fd/$reached" ]; then',
            f'    echo "{TOLD} $code" >&2',
            '    case "$code" in 0|85|86) code=1;; esac',
            "fi",
            'job="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"',
            'job="${job:-$SLURM_JOB_ID}"',
            'if [ "$code" -eq 85 ]; then exec scontrol requeue "$job"; fi',
            'if [ "$code" -eq 86 ]; then exec scancel "$job"; fi',
            'exit "$code"',
        ],
        "signal_delay_s": 90,
        "srun_args": ["--cpus-per-task=4", "--export=ALL"],
        "additional_parameters": {
            "qos": "high",
            "mail-type": "END,FAIL",
            "exclusive": True,
            "nice": 5,
            "requeue": True,
        },
        "wckey": None,
    }


def test_what_is_not_set_is_not_asked_for() -> None:
    parameters = slurm_parameters(SlurmConfig(), "x", "")
    optional = {"partition", "gres", "comment", "account", "qos", "constraint", "exclude", "nodelist", "dependency"}
    assert not (optional | {"mail_type", "mail_user"}) & parameters.keys()
    assert parameters["mem"] == "16G"
    assert parameters["setup"] == [*FIRST, *LAST]
    assert parameters["additional_parameters"] == {"requeue": True}


def test_gpus_as_a_number_and_short_limits() -> None:
    parameters = slurm_parameters(replace(CONFIG, gpus=2, time=timedelta(minutes=2)), "x", "")
    assert parameters["gres"] == "gpu:2"
    assert parameters["signal_delay_s"] == 30


def test_memory_per_cpu_takes_the_place_of_the_default() -> None:
    parameters = slurm_parameters(replace(CONFIG, memory=None, extra={"mem-per-cpu": "3G"}), "x", "")
    assert "mem" not in parameters
    assert parameters["additional_parameters"] == {"mem-per-cpu": "3G", "requeue": True}


def test_options_with_keys_of_their_own() -> None:
    config = SlurmConfig(
        account="lab",
        qos="high",
        constraint="a100|h100",
        exclude="node[1-3]",
        nodelist="node7",
        mail=MailConfig(user="stud421@example.org"),
        after=("7", "afterany:8_1"),
    )
    found = slurm_parameters(config, "x", "")
    assert {key: found[key] for key in ("account", "qos", "constraint", "exclude", "nodelist")} == {
        "account": "lab",
        "qos": "high",
        "constraint": "a100|h100",
        "exclude": "node[1-3]",
        "nodelist": "node7",
    }
    assert (found["mail_type"], found["mail_user"]) == ("END,FAIL", "stud421@example.org")
    assert found["dependency"] == "afterok:7,afterany:8_1"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("output", "x", "set by the submission itself"),
        ("open_mode", "truncate", "set by the submission itself"),
        ("array", "0-3", "a sweep is a job array; for how many of its tasks run at once set slurm.array_limit"),
        ("hold", True, "submitted held"),
        ("clusters", "other", "jobs run on the cluster that SLURM_CONF names"),
        ("no_requeue", True, "set slurm.max_requeues"),
        ("time", "1:00", "set slurm.time instead"),
        ("cpus-per-task", 3, "set slurm.cpus instead"),
        ("gres", "gpu:1", "--gres and slurm.gpus ask for the same twice"),
        ("gpus", 1, "or set slurm.gpus=null"),
        ("mem-per-cpu", "3G", "--mem-per-cpu and slurm.memory ask for the same twice"),
        ("partition", "week", "--partition and slurm.partition ask"),
        ("--qos", "x", "without the dashes"),
        ("qos\n#SBATCH --x", "x", "without the dashes"),
        ("qos", "a\nrm -rf x", "several lines"),
    ],
)
def test_options_that_can_not_be_used(option: str, value: str | int | bool, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        slurm_parameters(replace(CONFIG, extra={option: value, "hint": "x"}), "x", "")
    (problem,) = caught.value.problems
    assert problem.key == f"slurm.extra.{option}"
    assert words in str(problem)


def test_all_wrong_options_are_named_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        slurm_parameters(replace(CONFIG, extra={"output": "x", "mem": "1G"}), "x", "")
    assert [p.key for p in caught.value.problems] == ["slurm.extra.output", "slurm.extra.mem"]


@pytest.mark.parametrize(
    ("extra", "key", "words"),
    [
        ({"exclusiv": True}, "slurm.extra.exclusiv", "sbatch has no option --exclusiv (did you mean 'exclusive'?)"),
        ({"cpus_per_taks": 2}, "slurm.extra.cpus_per_taks", "no option --cpus-per-taks (set slurm.cpus instead)"),
        ({"zzz": 2}, "slurm.extra.zzz", "no option --zzz (see `sbatch --help` for the long options)"),
        ({"mem-per-cpu": "1G", "mem-per-gpu": "2G"}, "slurm.extra.mem-per-gpu", "exclude each other"),
        ({"mem-bind": "a", "mem_bind": "b"}, "slurm.extra.mem_bind", "given twice, also as 'mem-bind'"),
    ],
)
def test_options_that_do_not_exist_or_do_not_fit_together(extra: dict[str, Any], key: str, words: str) -> None:
    (problem,) = option_problems(SlurmConfig(extra=extra))
    assert problem.key == key
    assert words in f"{problem.message} ({problem.hint})"


def test_what_yaml_reads_as_true_and_false_is_what_sbatch_understands() -> None:
    extra: dict[str, str | int | bool]
    for value, words in ((True, ["yes", "1"]), (False, ["no", "0"])):
        extra = {"kill-on-invalid-dep": value, "wait_all_nodes": value, "contiguous": value}
        assert option_problems(SlurmConfig(extra=extra)) == []
        found = slurm_parameters(SlurmConfig(extra=extra), "x", "")["additional_parameters"]
        assert [found["kill-on-invalid-dep"], found["wait-all-nodes"]] == words
        assert ("contiguous" in found) is value
    (problem,) = option_problems(SlurmConfig(extra={"licenses": True}))
    assert problem.message == "--licenses needs a value, found true, which is also how YAML reads yes and on"


def test_an_option_is_not_abbreviated() -> None:
    """sbatch would take `wra` for `wrap`, which the submission must have for itself."""
    assert is_abbreviated("wra") and is_abbreviated("kill-on") and not is_abbreviated("pyxis-image")


def test_a_cluster_may_know_more_options() -> None:
    config = SlurmConfig(extra={"pyxis-image": "x"})
    assert option_problems(config)
    assert option_problems(config, {"pyxis-image"}) == []
    assert slurm_parameters(config, "x", "")["additional_parameters"]["pyxis-image"] == "x"


@pytest.mark.parametrize(
    ("changes", "command", "setup"),
    [
        (
            {},
            '"$TDMPC_LAB_CONTAINER" exec --nv --bind /data:/data --bind /home/me/x --bind /lab /lab/lab.sif python',
            [RUNTIME],
        ),
        (
            {"runtime": "singularity", "nv": False, "bind": (), "image": "~/my images/a.sif", "python": "python3"},
            "singularity exec --bind /lab '/home/me/my images/a.sif' python3",
            [],
        ),
        (
            {"runtime": "apptainer", "bind": ("$UNSET:/x:ro",), "image": "docker://lab/image:1"},
            "apptainer exec --nv --bind '$UNSET:/x:ro' --bind /lab docker://lab/image:1 python",
            [],
        ),
    ],
)
def test_the_command_in_a_container(changes: dict[str, Any], command: str, setup: list[str]) -> None:
    container = replace(ContainerConfig(image="lab.sif", bind=("/data:/data", "$HOME/x")), **changes)
    config = SlurmConfig(container=container)
    assert python_command(config, Path("/lab"), {"HOME": "/home/me"}) == command
    source = Path(tdmpc_lab.__file__).parents[1]
    path = f'export PYTHONPATH={shlex.quote(str(source))}"${{PYTHONPATH:+:$PYTHONPATH}}"'
    assert container_setup(config) == [path, *setup]


def test_the_runtime_is_found_on_the_node(tmp_path: Path) -> None:
    """The lines as a shell runs them: the first runtime there is, else a sentence and exit code 127."""
    lines = "\n".join(container_setup(SlurmConfig(container=ContainerConfig(image="x"))))
    script = f'{lines}\necho "$TDMPC_LAB_CONTAINER"'

    def run() -> subprocess.CompletedProcess[str]:
        environ = {"PATH": str(tmp_path)}
        return subprocess.run(["/bin/sh", "-c", script], env=environ, capture_output=True, text=True, check=False)

    nothing = run()
    assert (nothing.returncode, nothing.stdout) == (127, "")
    assert "neither apptainer nor singularity is on this node" in nothing.stderr
    for name in ("singularity", "apptainer"):
        (tmp_path / name).touch(mode=0o755)
        assert run().stdout == f"{tmp_path}/{name}\n"


def test_the_script(tmp_path: Path) -> None:
    project = Project(tmp_path / "my lab")
    folder = tmp_path / "my lab" / "jobs" / ".submitit"
    out, err = f"{folder}/%j_0_log.out", f"{folder}/%j_0_log.err"
    python = shlex.quote(sys.executable)
    assert (
        sbatch_script(project, CONFIG, "quick · start", "what it is")
        == f"""#!/bin/bash

# Parameters
#SBATCH --begin=now+52weeks
#SBATCH --chdir='{tmp_path}/my lab'
#SBATCH --comment='what it is'
#SBATCH --cpus-per-task=4
#SBATCH --error='{err}'
#SBATCH --exclusive
#SBATCH --gres=gpu:2080ti:1
#SBATCH --job-name='quick · start'
#SBATCH --mail-type=END,FAIL
#SBATCH --mem=16G
#SBATCH --nice=5
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output='{out}'
#SBATCH --partition=day
#SBATCH --qos=high
#SBATCH --requeue
#SBATCH --signal=USR2@90
#SBATCH --time=1441

# setup
set +eu
unset ${{!SRUN_@}} ${{!SCONTROL_@}} ${{!SCANCEL_@}}
export TDMPC_LAB_SCRIPT_START=$(date +%s)
reached=
if file=$(mktemp 2> /dev/null); then exec {{reached}}<> "$file"; rm -f "$file"; fi
(
export PYTHONIOENCODING=utf-8:backslashreplace
export OMP_NUM_THREADS=4
export MKL_NUM_THREADS=4
export OPENBLAS_NUM_THREADS=4
export NUMEXPR_NUM_THREADS=4
module load cuda
export X='a b'

tdmpc_lab_code=0
[ -z "$reached" ] || echo yes >&"$reached"

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '{folder}/%j_%t_log.out' --error '{folder}/%j_%t_log.err' --cpus-per-task=4 --export=ALL \
{python} -u -m submitit.core._submit '{folder}' || tdmpc_lab_code=$?


# teardown
tdmpc_lab_at_exit=$(trap -p EXIT)
( eval "$tdmpc_lab_at_exit"; builtin exit "$tdmpc_lab_code" ) || :
trap - EXIT
builtin exit "$tdmpc_lab_code"
)
code=$?
if [ -n "$reached" ] && [ ! -s "/dev/fd/$reached" ]; then
    echo "tdmpc-lab: the job was not begun: the lines before it (slurm.setup) ended with exit code $code" >&2
    case "$code" in 0|85|86) code=1;; esac
fi
job="${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}"
job="${{job:-$SLURM_JOB_ID}}"
if [ "$code" -eq 85 ]; then exec scontrol requeue "$job"; fi
if [ "$code" -eq 86 ]; then exec scancel "$job"; fi
exit "$code"
"""[:-1]
    )


def test_the_script_of_a_job_in_a_container(tmp_path: Path) -> None:
    container = ContainerConfig(image="lab.sif", runtime="apptainer")
    script = sbatch_script(Project(tmp_path), replace(CONFIG, container=container), "x")
    folder = tmp_path / "jobs" / ".submitit"
    assert (
        f"--cpus-per-task=4 --export=ALL apptainer exec --nv --bind {tmp_path} {tmp_path}/lab.sif python -u "
        f"-m submitit.core._submit {folder} || tdmpc_lab_code=$?\n"
    ) in script


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["set -e"],
        ["set -euo pipefail"],
        ["exec 3>&1", "trap 'exit 3' EXIT"],
        ["trap 'exit 3' ERR", "set -Ee"],
        ["srun() { command srun; }", "exit() { :; }", "scontrol() { :; }", "scancel() { :; }"],
        ["export PATH=/nowhere:$PATH SCANCEL_STATE=PENDING", "unset SLURM_JOB_ID SLURM_ARRAY_JOB_ID"],
        ["code=0 job=77", "readonly code job at_exit"],
        ["export X=1 \\"],
        ["cd /", "umask 0777", "set -f"],
        ["true ;", "# nothing )"],
    ],
)
@pytest.mark.parametrize(("code", "does"), [(85, "scontrol requeue 8_3"), (86, "scancel 8_3"), (5, None)])
def test_lines_of_a_user_leave_the_end_of_the_job_alone(
    lines: list[str], code: int, does: str | None, tmp_path: Path
) -> None:
    """The script as bash runs it: what the job asks for by its exit code is done, whatever stands in `setup`."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (
        ("srun", f"exit {code}"),
        ("scontrol", f'echo "scontrol $*" > {tmp_path}/did'),
        ("scancel", f'env | grep ^SCANCEL_; echo "scancel $*" > {tmp_path}/did'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    (tmp_path / "start").write_text("set -e\n")
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    job = {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "3"}
    done = subprocess.run(
        ["bash", "-c", sbatch_script(Project(tmp_path), replace(CONFIG, setup=tuple(lines)), "x")],
        env={"PATH": path, **job, "BASH_ENV": str(tmp_path / "start"), "SCANCEL_STATE": "PENDING"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("", "")
    if does is None:
        assert done.returncode == code
    else:
        assert (tmp_path / "did").read_text() == f"{does}\n"


@pytest.mark.parametrize(
    ("lines", "code", "said"),
    [
        (["false", "set -e", "(exit 85)"], 1, 85),
        (["exit 86"], 1, 86),
        (["exit 0"], 1, 0),
        (["exec true"], 1, 0),
        (["set -n"], 1, 0),
        (["set -e", "module load nowhere 2> /dev/null"], 127, 127),
    ],
)
def test_lines_that_end_before_the_job_begins_are_told_and_never_requeued(
    lines: list[str], code: int, said: int, tmp_path: Path
) -> None:
    for name in ("srun", "scontrol", "scancel"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} is called\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", sbatch_script(Project(tmp_path), replace(CONFIG, setup=tuple(lines)), "x")],
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "8", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == f"{TOLD} {said}\n"
    assert (done.stdout, done.returncode) == ("", code)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scancel", "scontrol", "srun"]


def test_a_trap_of_the_user_still_cleans_up(tmp_path: Path) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\nexit 4\n")
    (tmp_path / "srun").chmod(0o755)
    setup = ('echo "began with $#"', "trap 'echo \"cleaned after $?\"' EXIT")
    script = sbatch_script(Project(tmp_path), replace(CONFIG, setup=setup), "x")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", script], env={"PATH": path}, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("began with 0\ncleaned after 4\n", "", 4)


@pytest.mark.parametrize(("option", "value"), [("begin", "20:00"), ("deadline", "now+65minutes")])
def test_a_job_with_a_time_of_its_own_is_held_by_sbatch(option: str, value: str, tmp_path: Path) -> None:
    script = sbatch_script(Project(tmp_path), replace(CONFIG, extra={option: value}), "x")
    assert "#SBATCH --hold\n" in script
    assert f"#SBATCH --{option}={value}\n" in script
    assert "52weeks" not in script


def test_the_code_of_a_job_is_found_before_anything_that_setup_lines_bring(tmp_path: Path) -> None:
    """The script is run by a shell, as SLURM would: what does the job's Python see?"""
    kept = tmp_path / "kept code"
    (kept / "src").mkdir(parents=True)
    workplace = Workplace(kept, (kept / "src", kept), {"TDMPC_LAB_ROOT": str(tmp_path)})
    config = replace(CONFIG, setup=("export PYTHONPATH=/from/setup",))
    script = sbatch_script(Project(tmp_path), config, "x", workplace=workplace)
    assert f"#SBATCH --chdir={tmp_path}\n" in script  # setup lines are written for the project's folder
    lines = script.splitlines()
    setup = lines[lines.index("# setup") + 1 : lines.index("# command")]
    said = subprocess.run(
        ["bash", "-c", "\n".join([*setup, 'echo "$PYTHONPATH|$PWD|$TDMPC_LAB_ROOT"', ")"])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"{kept}/src:{kept}:/from/setup|{kept}|{tmp_path}\n"


def test_when_the_batch_script_began() -> None:
    assert attempt_start({"TDMPC_LAB_SCRIPT_START": "1795544706"}) == datetime(2026, 11, 24, 18, 25, 6, tzinfo=UTC)
    for text in ("", "soon", "-1", "9" * 30):
        assert attempt_start({"TDMPC_LAB_SCRIPT_START": text}) is None
    assert attempt_start({}) is None
