"""Ids that are none of a job here, and that the tool knows all the same: every command says what they are."""

from __future__ import annotations

import pytest
from queue_fixtures import job, lab, queue  # noqa: F401 - `lab` is a fixture

from tdmpc_lab.cli.main import main
from tdmpc_lab.jobs.paths import Project

OF_ONE_JOB = ["resume {}", "rerun {}", "eval {}", "export {} out", "doctor {}", "logs {}"]
OF_ANY_JOB = [*OF_ONE_JOB, "cancel {}", "wait {}", "status {}", "sync {}", "gc {}", "ui {}", "compare {}"]


@pytest.fixture
def project(lab: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """With an array, a note whose job has no folder, and somebody else's job in the queue."""
    lab.experiments.mkdir()
    lab.notes.mkdir()
    for task in (0, 1, 2, 3):
        job(lab, f"20_{task}", "sweep", "started")
    lab.note("1980001").write_text("##### 1980001\n- typed by hand\n")
    queue(lab, j1980002="RUNNING", j30_1="PENDING")
    monkeypatch.chdir(lab.root)
    return lab


def told(capsys: pytest.CaptureFixture[str], command: str, job_id: str) -> str:
    assert main(command.format(job_id).split()) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("command", OF_ONE_JOB)
def test_an_array_is_named_with_its_tasks(command: str, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, command, "20")
    assert "4 tasks" in said
    assert "20_0" in said
    assert "no job" not in said


@pytest.mark.parametrize("command", OF_ANY_JOB)
def test_a_note_without_a_folder(command: str, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Taken over from a hand-written log, or of a job whose folder was removed."""
    said = told(capsys, command, "1980001")
    assert "of 1980001 there is only a note (tdmpc-lab show 1980001)" in said
    assert "no job" not in said


@pytest.mark.parametrize("command", [*OF_ANY_JOB, "show {}", "note {}", "verdict {} bad because"])
def test_a_job_of_the_queue_that_is_not_of_this_project(
    command: str, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(capsys, command, "1980002")
    assert "no job 1980002 in" in said
    assert "SLURM's queue has it: a job, RUNNING, submitted elsewhere; to stop it: scancel 1980002" in said


@pytest.mark.parametrize("job_id", ["30", "30_1"])
def test_an_array_of_the_queue_that_is_not_of_this_project(
    job_id: str, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"scancel {job_id}" in told(capsys, "cancel {}", job_id)
    assert "scancel" not in told(capsys, "cancel {}", "30_2")
    assert "20_0" in told(capsys, "rerun {}", "20_[0-2]")


@pytest.mark.parametrize("command", ["rerun {}", "resume {}", "eval {}"])
def test_an_array_of_this_project_is_no_stranger(
    command: str, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    queue(project, **{f"j20_{task}": "COMPLETED" for task in range(4)})
    said = told(capsys, command, "20")
    assert "20_0" in said
    assert "SLURM's queue" not in said


def test_a_job_of_this_project_without_its_folder(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    fields = "day|10:00|None|anna|0:10|1|node1|N/A"
    lines = [
        f"{job_id}|{word}|{fields}||{project.root}|slow\n" for job_id, word in (("40", "FAILED"), ("41", "RUNNING"))
    ]
    (project.root / "queue").write_text("".join(lines))
    said = told(capsys, "logs {}", "40")
    assert "SLURM's queue has it: slow, FAILED, submitted from this project\n" in said
    assert "RUNNING, submitted from this project; to stop it: scancel 41" in told(capsys, "logs {}", "41")


def test_an_id_that_nobody_knows(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, "cancel {}", "1980003")
    assert "no job 1980003 in" in said
    assert "SLURM" not in said
