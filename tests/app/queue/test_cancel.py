"""`cancel` with stand-ins for SLURM's commands: who is meant, what is asked of SLURM, what is told."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict

import pytest
from queue_fixtures import RECORD, job, lab, queue  # noqa: F401 - `lab` is a fixture

from tdmpc_lab.app.joblog.log import catch_up_notes
from tdmpc_lab.app.queue.cancel import cancel, chosen
from tdmpc_lab.app.queue.status import job_views
from tdmpc_lab.cli.main import main
from tdmpc_lab.errors import UsageError
from tdmpc_lab.files import read_jsonl, write_atomic
from tdmpc_lab.jobs.events import EventLog, person
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import read_record
from tdmpc_lab.jobs.state import State
from tdmpc_lab.launch.slurm import submitting


def told_slurm(project: Project) -> list[str]:
    path = project.root / "cancelled"
    return path.read_text().splitlines() if path.exists() else []


def test_who_is_meant(lab: Project) -> None:
    job(lab, "7")
    job(lab, "8", "other", "started")
    job(lab, "9", "other", "started", "finished")
    for task in (0, 2, 10):
        job(lab, f"20_{task}", "sweep")
    queue(lab, j7="RUNNING", j8="RUNNING", j9="RUNNING")
    assert chosen(lab, ["7", "7"], None) == ["7"]
    assert chosen(lab, ["20"], None) == ["20_0", "20_2", "20_10"]
    assert chosen(lab, [], "other") == ["8"]  # what is over is left out
    assert chosen(lab, ["9"], "other") == ["9", "8"]
    with pytest.raises(UsageError, match="experiments with jobs: other, reference, sweep"):
        chosen(lab, [], "refrence")
    with pytest.raises(UsageError, match="no job 99"):
        chosen(lab, ["99"], None)
    assert told_slurm(lab) == []


def test_jobs_that_wait_and_run_and_are_over(lab: Project) -> None:
    job(lab, "7")
    job(lab, "8", "reference", "started")
    job(lab, "9", "reference", "started", "finished")
    queue(lab, j7="PENDING", j8="RUNNING", j9="COMPLETED")
    done = cancel(lab, ["9", "8", "7"])
    assert done == {"9": "was over already: COMPLETED", "8": "cancelled in SLURM", "7": "cancelled in SLURM"}
    assert told_slurm(lab) == ["8 7"]
    (request,) = read_jsonl(lab.job("7").requests)[0]
    assert (request["request"], request["by"], request["save"]) == ("cancel", person(), False)
    assert not lab.job("9").requests.exists()


def test_a_request_is_the_cause_where_slurm_has_forgotten_the_job(lab: Project) -> None:
    job(lab, "7")
    queue(lab, j7="PENDING")
    cancel(lab, ["7"])
    queue(lab)
    (view,) = job_views(lab, ["7"])
    assert view.status is not None
    assert (view.status.state, view.status.cause) == (
        State.CANCELLED,
        f"cancelled in SLURM by {person()}; log: jobs/7/log.err",
    )
    EventLog(lab.job("7").events).append("started", attempt=1)  # somebody let it run again after all
    (view,) = job_views(lab, ["7"])
    assert view.status is not None
    assert view.status.state is State.UNKNOWN


def test_saving_is_waited_for(lab: Project) -> None:
    paths = job(lab, "8", "reference", "started")
    job(lab, "9", "reference", "started", "preempted")  # waits to be started again: nothing new to save
    queue(lab, j8="RUNNING", j9="PENDING")
    told: list[str] = []

    def save() -> None:
        while not told_slurm(lab):
            time.sleep(0.02)
        EventLog(paths.events).append("stopped", reason="cancelled by anna", step=1234, attempt=1)

    thread = threading.Thread(target=save)
    thread.start()
    done = cancel(lab, ["8", "9"], save=True, wait_s=20, tell=told.append)
    thread.join()
    assert done == {"8": "saved at step 1,234 and stopped", "9": "cancelled in SLURM"}
    assert told_slurm(lab) == ["9", "--signal=USR1 8"]
    assert told == ["asked to save and stop: 8; waiting for it, at most 20 s"]


def test_the_wait_for_a_save_ends(lab: Project) -> None:
    job(lab, "8", "reference", "started")
    queue(lab, j8="RUNNING")
    done = cancel(lab, ["8"], save=True, wait_s=0.1)
    assert "still busy after 0 s; to kill it: tdmpc-lab cancel 8" in done["8"]


def test_a_whole_array_is_cancelled_by_one_id_and_its_note_says_so(lab: Project) -> None:
    for task in ("20_0", "20_1", "21_0", "21_1", "22"):
        paths = job(lab, task)
        array = task.partition("_")[0] if "_" in task else None
        write_atomic(paths.record, json.dumps({**asdict(read_record(paths)), "array_id": array}))
    queue(lab, j20_0="RUNNING", j20_1="PENDING", j21_0="PENDING", j21_1="PENDING", j22="RUNNING")
    done = cancel(lab, ["20_0", "20_1", "21_1", "22"])
    assert list(done) == ["20_0", "20_1", "21_1", "22"]
    assert [sorted(line.split()) for line in told_slurm(lab)] == [["20", "21_1", "22"]]
    queue(lab, j21_0="PENDING")
    catch_up_notes(lab, job_views(lab, ["20_0", "20_1", "21_1"]))
    assert "- 2 CANCELLED\n" in lab.note("20").read_text()
    assert "- 1 PENDING, 1 CANCELLED\n" in lab.note("21").read_text()


def test_an_array_whose_submit_was_interrupted_goes_as_a_whole(lab: Project) -> None:
    with pytest.raises(KeyboardInterrupt), submitting(lab) as mark:
        raise KeyboardInterrupt
    (lab.root / "queue").write_text(f"30_[0-1]|{mark}\n31|{mark}\n")
    job(lab, "30_0")
    assert chosen(lab, ["30", "31"], None) == ["30", "30_0", "31"]
    done = cancel(lab, chosen(lab, ["30", "31"], None))
    assert set(done) == {"30", "30_0", "31"}
    assert {word for line in told_slurm(lab) for word in line.split()} >= {"30", "31"}
    with pytest.raises(UsageError, match="no job 32"):
        chosen(lab, ["32"], None)


def test_many_at_once_are_asked_about(
    lab: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten go without a question; of more nothing happens without a terminal, until told --yes."""
    (lab.root / "experiments").mkdir()
    monkeypatch.chdir(lab.root)
    for task in range(11):
        job(lab, f"9_{task}")
    queue(lab, **{f"j9_{task}": "PENDING" for task in range(11)})
    assert main(["cancel", "9"]) == 2
    said = capsys.readouterr().err
    assert "that are 11 jobs; nothing was done (--yes" in said
    assert "9_0\n" in said
    assert "and 3 more" in said
    assert told_slurm(lab) == []
    assert main(["cancel", "9_[0-9]"]) == 0
    assert main(["cancel", "9", "--yes"]) == 0
    assert len(told_slurm(lab)) == 2
