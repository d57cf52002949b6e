from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tdmpc_lab.config.schema import SlurmConfig
from tdmpc_lab.errors import SpecError
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch.environment import Workplace
from tdmpc_lab.launch.sbatch import held_parameters, sbatch_script, slurm_parameters, submit_folder

CONFIG = SlurmConfig(
    partition="day",
    gpus="2080ti:1",
    cpus=4,
    memory="16G",
    time=timedelta(hours=24, seconds=1),
    setup=("module load cuda", "export X='a b'"),
    extra={"qos": "high", "mail_type": "END,FAIL", "exclusive": True, "contiguous": False, "nice": 5},
)


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
        "setup": ["module load cuda", "export X='a b'"],
        "teardown": [
            "code=$?",
            'if [ "$code" -eq 85 ]; then exec scontrol requeue "$SLURM_JOB_ID"; fi',
            'if [ "$code" -eq 86 ]; then exec scancel "$SLURM_JOB_ID"; fi',
            'exit "$code"',
        ],
        "signal_delay_s": 90,
        "srun_args": ["--cpus-per-task=4"],
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
    assert not {"partition", "gres", "setup", "comment"} & parameters.keys()
    assert parameters["additional_parameters"] == {"requeue": True}


def test_gpus_as_a_number_and_short_limits() -> None:
    parameters = slurm_parameters(replace(CONFIG, gpus=2, time=timedelta(minutes=2)), "x", "")
    assert parameters["gres"] == "gpu:2"
    assert parameters["signal_delay_s"] == 30


def test_memory_per_cpu_takes_the_place_of_memory() -> None:
    parameters = slurm_parameters(replace(CONFIG, extra={"mem-per-cpu": "3G"}), "x", "")
    assert "mem" not in parameters
    assert parameters["additional_parameters"] == {"mem-per-cpu": "3G", "requeue": True}


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("output", "x", "set by the submission itself"),
        ("open_mode", "truncate", "set by the submission itself"),
        ("array", "0-3", "several jobs are several submits"),
        ("hold", True, "submitted held"),
        ("no_requeue", True, "set slurm.max_requeues"),
        ("time", "1:00", "set slurm.time instead"),
        ("cpus-per-task", 3, "set slurm.cpus instead"),
        ("gres", "gpu:1", "set slurm.gpus instead"),
        ("gpus", 1, "ask for GPUs twice"),
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


def test_the_script(tmp_path: Path) -> None:
    project = Project(tmp_path / "my lab")
    folder = tmp_path / "my lab" / "jobs" / ".submitit"
    out, err = f"{folder}/%j_0_log.out", f"{folder}/%j_0_log.err"
    python = shlex.quote(sys.executable)
    assert (
        sbatch_script(project, CONFIG, "quick · start", "what it is")
        == f"""#!/bin/bash

# Parameters
#SBATCH --begin=now+1hour
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
module load cuda
export X='a b'

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '{folder}/%j_%t_log.out' --error '{folder}/%j_%t_log.err' --cpus-per-task=4 \
{python} -u -m submitit.core._submit '{folder}'


# teardown
code=$?
if [ "$code" -eq 85 ]; then exec scontrol requeue "$SLURM_JOB_ID"; fi
if [ "$code" -eq 86 ]; then exec scancel "$SLURM_JOB_ID"; fi
exit "$code"
"""[:-1]
    )


def test_the_script_shown_is_the_one_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    srun = tmp_path / "bin" / "srun"  # submitit looks for it
    srun.parent.mkdir()
    srun.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(srun.parent), prepend=os.pathsep)
    from submitit import SlurmExecutor

    project = Project(tmp_path)
    executor = SlurmExecutor(submit_folder(project))
    executor.update_parameters(**held_parameters(project, CONFIG, "x", "y"))
    text = executor._make_submission_file_text(executor._submitit_command_str, "uid")
    assert text == sbatch_script(project, CONFIG, "x", "y")


def test_a_job_with_a_begin_of_its_own_is_held_by_sbatch(tmp_path: Path) -> None:
    script = sbatch_script(Project(tmp_path), replace(CONFIG, extra={"begin": "20:00"}), "x")
    assert "#SBATCH --hold\n" in script
    assert "#SBATCH --begin=20:00\n" in script


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
        ["bash", "-c", "\n".join([*setup, 'echo "$PYTHONPATH|$PWD|$TDMPC_LAB_ROOT"'])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"{kept}/src:{kept}:/from/setup|{kept}|{tmp_path}\n"
