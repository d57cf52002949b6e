"""What `status` makes of a job's files and the scheduler's answers, and how often it asks."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from queue_fixtures import job, lab, queue  # noqa: F401 - `lab` is a fixture

from tdmpc_lab.app.joblog.log import catch_up_notes
from tdmpc_lab.app.joblog.write import refresh_rollup, write_note
from tdmpc_lab.app.queue.status import Asked, Selection, job_views, last_error, list_jobs, newest_and_active
from tdmpc_lab.cli.main import main
from tdmpc_lab.cli.tables import print_listing
from tdmpc_lab.jobs.events import read_brief, read_events
from tdmpc_lab.jobs.find import all_records
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.state import SchedulerState, State
from tdmpc_lab.launch.attempts import DEAD_S, AttemptLease
from tdmpc_lab.notes.entries import read_entry


def test_a_python_error_before_the_job_could_say_anything(lab: Project) -> None:
    paths = job(lab, "7")
    paths.log_err.write_text(
        'Traceback (most recent call last):\n  File "x.py"\nModuleNotFoundError: No module\nsrun: x\n'
    )
    queue(lab, j7="FAILED")
    (view,) = job_views(lab, ["7"])
    assert view.status is not None
    assert view.status.state is State.FAILED
    assert view.status.cause is not None
    assert view.status.cause.startswith("ModuleNotFoundError: No module; SLURM says it failed")
    catch_up_notes(lab, [view])
    assert "FAILED" in lab.note("7").read_text()


def test_the_last_error_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.err"
    assert last_error(log) is None
    log.write_text("all is well\nErrors: none\n")
    assert last_error(log) is None
    log.write_text("torch.cuda.OutOfMemoryError: CUDA out of memory\nsubmitit says\nKeyboardInterrupt\n")
    assert last_error(log) == "KeyboardInterrupt"


def test_slurm_is_asked_again_only_after_a_while(lab: Project) -> None:
    job(lab, "7")
    job(lab, "8")
    queue(lab, j7="PENDING", j8="PENDING")
    asked = Asked(60)
    assert [v.status.state for v in job_views(lab, ["7"], asked) if v.status] == [State.PENDING]
    queue(lab, j7="RUNNING", j8="RUNNING")
    assert [v.status.state for v in job_views(lab, ["7"], asked) if v.status] == [State.PENDING]
    assert [v.status.state for v in job_views(lab, ["7", "8"], asked) if v.status] == [State.RUNNING] * 2


def test_passed_checkpoints_are_left_out_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    kinds = ["started", "checkpoint", "checkpoint", "warning", "checkpoint", "started", "checkpoint", "checkpoint"]
    rows = [{"time": f"2026-02-03T09:00:{n:02}", "event": kind, "step": n} for n, kind in enumerate(kinds)]
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows) + '{"time":"torn')
    kept = [0, 2, 3, 4, 5, 7]
    assert read_brief(path) == [rows[n] for n in kept]
    assert len(read_events(path)) == len(rows)
    assert read_brief(tmp_path / "none") == []


def test_of_many_jobs_the_newest_and_the_active_are_shown(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(1, 8):
        job(lab, str(number), "reference", *([] if number in (2, 3) else ["started", "finished"]))
    job(lab, "8", "reference", "started", "finished", "started")  # requeued after it had ended
    job(lab, "9", "reference", "started", "failed")
    job(lab, "10", "reference", "started", "finished")
    lab.job("4").record.write_text("torn")
    queue(lab, j2="PENDING", j8="RUNNING")  # nobody knows 3
    views, others = newest_and_active(all_records(lab), 3)
    # What can't be read stands where its file's time puts it: now.
    assert [view.id for view in views] == ["2", "8", "9", "10", "4"]
    assert [view.id for view in others] == ["3"]
    everything = {view.id: view.as_dict() | {"elapsed_s": None} for view in job_views(lab)}
    assert [view.as_dict() | {"elapsed_s": None} for view in views] == [everything[view.id] for view in views]
    assert newest_and_active(all_records(lab), 10)[1] == []
    monkeypatch.setattr("tdmpc_lab.cli.queue.MOST_SHOWN", 3)
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(lab.root))
    (lab.root / "experiments").mkdir(exist_ok=True)
    assert main(["status"]) == 0
    assert "5 older jobs are over and not shown; all: tdmpc-lab status --all" in capsys.readouterr().out
    assert main(["status", "--all"]) == 0
    assert (shown := capsys.readouterr().out) and all(f"\n{number} " in shown for number in range(1, 11))


def test_the_table_says_that_slurm_can_not_be_reached(
    lab: Project,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job(lab, "7", "reference", "started")
    (lab.root / "bin" / "squeue").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    print_listing(list_jobs(lab, Selection(), None), in_full=False)
    shown = capsys.readouterr().out
    assert "the scheduler can't be reached (SLURM does not answer" in shown
    assert "this is what was last known" in shown


def killed(lab: Project, *ids: str) -> None:
    """Jobs whose notes say that they run, of which SLURM says that they were killed."""
    for number in ids:
        paths = job(lab, number, "reference", "started")
        write_note(lab, paths, SchedulerState("RUNNING"))
    refresh_rollup(lab)
    queue(lab, **{f"j{number}": "FAILED" for number in ids})


def noted(lab: Project, job_id: str) -> str:
    """The states of a job in its note and in the roll-up."""
    state = read_entry(lab.note(job_id)).state or "?"
    rollup = lab.rollup.read_text(encoding="utf-8").partition(f"##### {job_id} ")[2].partition("#####")[0]
    return f"{state} {'RUNNING' if 'RUNNING' in rollup else 'FAILED' if 'FAILED' in rollup else rollup}"


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["status", "8", "--json"],
        ["status", "--state", "running"],
        ["show", "8"],
        ["wait", "8"],
        ["note", "8"],
        ["notes"],
        ["notes", "--rollup"],
        ["verdict", "8", "bad", "because it was killed"],
    ],
    ids=" ".join,
)
def test_whoever_looks_at_a_job_that_was_killed_brings_its_note_up_to_date(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
) -> None:
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(lab.root))
    (lab.root / "experiments").mkdir(exist_ok=True)
    killed(lab, "8")
    assert noted(lab, "8") == "RUNNING RUNNING"
    main(words)
    assert noted(lab, "8") == "FAILED FAILED"


def test_a_note_is_written_once_and_old_jobs_are_looked_at_too(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(lab.root))
    monkeypatch.setattr("tdmpc_lab.cli.queue.MOST_SHOWN", 1)
    (lab.root / "experiments").mkdir(exist_ok=True)
    killed(lab, "7", "8", "9")
    main(["status"])
    assert [noted(lab, number) for number in ("7", "8", "9")] == ["FAILED FAILED"] * 3
    written: list[str] = []
    monkeypatch.setattr("tdmpc_lab.app.joblog.log.write_note", lambda *_: written.append("note"))
    monkeypatch.setattr("tdmpc_lab.app.joblog.log.refresh_rollup", lambda _: written.append("rollup"))
    main(["status"])
    assert written == []


def test_a_job_that_nobody_knows_is_noted_as_unknown_when_it_has_been_still_for_long(
    lab: Project,
) -> None:
    killed(lab, "8")
    queue(lab)  # neither in the queue nor in the accounts
    paths = lab.job("8")
    AttemptLease.claim(paths.attempts).release()
    catch_up_notes(lab, job_views(lab, ["8"]))
    assert noted(lab, "8") == "RUNNING RUNNING"  # it may be between the two
    (sign,) = paths.attempts.iterdir()
    os.utime(sign, (time.time() - 2 * DEAD_S,) * 2)
    catch_up_notes(lab, job_views(lab, ["8"]))
    assert read_entry(lab.note("8")).state == "UNKNOWN"
