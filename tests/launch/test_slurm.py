from __future__ import annotations

from pathlib import Path

import pytest

from tdmpc_lab.config.schema import SlurmConfig
from tdmpc_lab.errors import ExternalError, UsageError
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch import slurm
from tdmpc_lab.launch.sbatch import submit_folder


def _script(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins for SLURM's commands, and nothing else on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_only_ids_reach_the_commands(commands: Path) -> None:
    for wrong in ("--all", "-u root", "7;ls", "", "7_", "local-20260203-091422-123"):
        with pytest.raises(UsageError, match="no SLURM job id"):
            slurm.release(wrong)
        with pytest.raises(UsageError, match="no SLURM job id"):
            slurm.cancel_ids(["7", wrong])
    slurm.cancel_ids([])


def test_cancelling_what_is_over_is_no_error(commands: Path) -> None:
    words = "scancel: error: Kill job error on job id 8: Invalid job id specified"
    _script(commands, "scancel", f"echo '{words}' >&2; exit 1")
    slurm.cancel_ids(["8"])
    _script(commands, "scancel", "echo 'scancel: error: Access/permission denied' >&2; exit 1")
    with pytest.raises(UsageError, match="permission denied"):
        slurm.cancel_ids(["8"])


def test_without_slurm_a_submit_says_so(commands: Path, tmp_path: Path) -> None:
    assert not slurm.has_sbatch()
    with pytest.raises(ExternalError, match="--cluster local"):
        slurm.submit_held(Project(tmp_path), SlurmConfig(), "x", print)
    assert not (tmp_path / "jobs").exists()


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("sbatch: error: Batch job submission failed: Invalid partition name specified", UsageError),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller", ExternalError),
    ],
)
def test_sbatch_in_its_own_words(
    words: str, kind: type[Exception], commands: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("sbatch", "srun"):
        _script(commands, name, f"echo '{words}' >&2; exit 1")
    with pytest.raises(kind, match=words):
        slurm.submit_held(Project(tmp_path), SlurmConfig(partition="nope"), "x", print)
    assert [p.name for p in submit_folder(Project(tmp_path)).iterdir()] == [".lock"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("answer", "job_id"),
    [
        ("77\n", "77"),
        ("Submitted batch job 77\n", "77"),
        ("This job 12 SU of 1000 SU left\nSubmitted batch job 77\njob 13 is next\n", "77"),
        ("77\nyour job 77 costs 12 SU\n", "77"),
        ("77\nSubmitted batch job 77\n", "77"),
        ("12\n77\n", None),  # either may be it
        ("77;other\n", None),
        ("Submitted batch job 77 on cluster other\n", None),
        ("Your job 77 was queued\n", None),
        ("0\n", None),
        ("-77\n", None),
        ("", None),
    ],
)
def test_the_id_in_an_answer_of_sbatch(answer: str, job_id: str | None) -> None:
    assert slurm.id_in_answer(answer) == job_id


def test_a_job_that_can_not_be_held_is_cancelled(commands: Path, tmp_path: Path) -> None:
    for name in ("sbatch", "srun"):
        _script(commands, name, "echo Submitted batch job 77")
    _script(commands, "scontrol", "echo 'slurm_suspend error: not available' >&2; exit 1")
    _script(commands, "scancel", f'echo "$@" >> {tmp_path}/cancelled')
    with pytest.raises(UsageError, match="not available"):
        slurm.submit_held(Project(tmp_path), SlurmConfig(), "x", print)
    assert (tmp_path / "cancelled").read_text() == "77\n"


def test_the_id_of_the_job_around_this_process() -> None:
    assert slurm.running_id({}) is None
    assert slurm.running_id({"SLURM_JOB_ID": "8"}) == "8"
    array = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "3"}
    assert slurm.running_id(array) == "8_3"
