"""Which jobs `status` shows, those that are not the project's too, and what it says of them."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Collection
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from queue_fixtures import change, job, lab  # noqa: F401 - `lab` is a fixture

from tdmpc_lab.app.queue.status import KEYS, NOT_OURS, UNRECORDED, Asked, Listing, Selection, list_jobs, parse_states
from tdmpc_lab.cli.main import main
from tdmpc_lab.cli.tables import facts, queue_lines, queue_markdown
from tdmpc_lab.errors import UsageError
from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.events import person
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.state import State
from tdmpc_lab.launch.queue import Queue
from tdmpc_lab.notes.handwritten import queue_lines as pasted_lines

MARK = "tdmpc-lab-0123456789abcdef"


def line(job_id: str, word: str, **other: str) -> str:
    """A line of squeue."""
    known = {
        "partition": "week",
        "limit": "1-00:00:00",
        "reason": "None",
        "user": "stud421",
        "used": "10:00:00",
        "nodes": "1",
        "nodelist": "tcml-node37",
        "begin": "N/A",
        "comment": "(null)",
        "folder": "/home/stud421",
        "name": "hockey_s",
        **other,
    }
    return "|".join([job_id, word, *known.values()])


def queue(project: Project, *lines: str) -> None:
    (project.root / "queue").write_text("".join(f"{text}\n" for text in lines))


def running(project: Project, job_id: str, **line_of: str) -> JobPaths:
    """A job that has done 40,000 of 100,000 steps in ten hours, one a second."""
    paths = job(project, job_id, "hockey_s", "started")
    change(paths, about="backprop without shaping", steps_total=100_000)
    row = {"step": 40_000, "split": "train", "attempt": 1, "wall_s": 36_000.0, "steps_per_s": 1.0, "return": -4.0}
    append_jsonl(paths.metrics, row)
    sign = paths.attempts / "000001.json"
    sign.parent.mkdir()
    sign.write_text("{}")
    queue(project, line(job_id, "RUNNING", **line_of))
    return paths


def text_of(listing: Listing, width: int = 200) -> str:
    return "\n".join(text.plain for text in queue_lines([*listing.views, *listing.foreign], width))


def test_jobs_of_the_queue_that_are_not_of_this_project(lab: Project) -> None:
    job(lab, "7", "reference", "started")
    job(lab, "20_0", "sweep")
    queue(
        lab,
        line("7", "RUNNING"),
        line("20_0", "RUNNING"),
        line("8", "RUNNING", name="odd|name", folder=str(lab.root)),
        line("9", "PENDING", nodelist="", reason="Priority", used="0:00"),
        line("10", "COMPLETED"),
        line("30_[0-3,7%2]", "PENDING", nodelist="", reason="Resources"),
        line("30_5", "RUNNING"),
        line("31", "PENDING", comment=MARK, folder=str(lab.root)),
    )
    listing = list_jobs(lab, Selection(), None)
    assert [view.id for view in listing.views] == ["7", "20_0"]
    ids = {view.id: view for view in listing.foreign}
    assert list(ids) == ["8", "9", "30_[0-3,7]", "30_5", "31"]
    assert all(view.foreign and view.problem == NOT_OURS for view in listing.foreign[:-1])
    assert ids["31"].problem == UNRECORDED
    assert (ids["8"].state, ids["9"].state) == (State.RUNNING, State.PENDING)
    shown = text_of(listing)
    assert "8          week      odd|name  stud421" in shown
    assert "(Priority)" in shown
    assert f"-> {NOT_OURS}" in shown
    assert list_jobs(lab, Selection(foreign=False), None).foreign == []
    assert list_jobs(lab, Selection(ids=["7"]), None).foreign == []
    document = ids["9"].as_dict()
    assert (document["foreign"], document["state"], document["about"]) == (True, "PENDING", NOT_OURS)
    assert document["slurm"]["nodelist_or_reason"] == "(Priority)"


def test_every_key_is_documented(lab: Project) -> None:
    running(lab, "7")
    job(lab, "6").record.write_text("torn")
    queue(lab, line("7", "RUNNING"), line("8", "RUNNING"))
    listing = list_jobs(lab, Selection(), None)
    documents = [view.as_dict() for view in (*listing.views, *listing.foreign)]
    assert {document["id"] for document in documents} == {"6", "7", "8"}
    page = (Path(__file__).resolve().parents[3] / "docs" / "status.md").read_text()
    table = page[page.index("| key | what |") :]
    for document in documents:
        assert set(document) == set(KEYS)
        assert json.loads(json.dumps(document)) == document
    assert [key for key in KEYS if f"`{key}`" not in table] == []


def test_the_queue_is_read_once(lab: Project) -> None:
    job(lab, "7", "reference", "started")
    asked: list[float | None] = []

    def ask(timeout_s: float | None, _users: Collection[int]) -> Queue:
        asked.append(timeout_s)
        return Queue()

    list_jobs(lab, Selection(), None, Asked(math.inf, ask))
    assert asked == [None]


def test_a_silent_queue_is_no_error_where_no_job_needs_it(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job(lab, "7", "reference", "started", "finished")
    (lab.root / "bin" / "squeue").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(lab.root))
    assert main(["status"]) == 0
    assert "your jobs outside this project are not shown: SLURM does not answer" in capsys.readouterr().out
    (lab.root / "bin" / "squeue").unlink()
    assert main(["status"]) == 0
    assert "outside this project" not in capsys.readouterr().out


def test_what_a_job_reaches_before_its_time_limit(lab: Project) -> None:
    running(lab, "7")
    (view,) = list_jobs(lab, Selection(), None).views
    assert view.limit_left_s == 14 * 3600
    assert view.done_at_limit == pytest.approx(0.904)
    said = [text for text, _ in facts(view)]
    assert "reaches 90 % before the limit in 14:00:00 (16:40:00 to go)" in said
    assert "step 40,000/100,000 (40 %)" in said
    for limit, text in {"UNLIMITED": "16:40:00 left", "2-00:00:00": "16:40:00 left"}.items():
        queue(lab, line("7", "RUNNING", limit=limit))
        (view,) = list_jobs(lab, Selection(), None).views
        assert view.done_at_limit is None
        assert text in [text for text, _ in facts(view)]


def test_results_of_the_latest_evaluation(lab: Project) -> None:
    paths = running(lab, "7")
    both = {"win_weak": 0.98, "draw_weak": 0.0, "win_strong": 0.9, "draw_strong": 0.1, "return_mean": 7.5}
    append_jsonl(paths.metrics, {"step": 41_000, "split": "eval", "attempt": 1, **both})
    (view,) = list_jobs(lab, Selection(), None).views
    document = view.as_dict()
    assert (document["wins"], document["win"]) == ({"weak": 0.98, "strong": 0.9}, None)
    assert document["return"] == 7.5
    assert "win weak 0.98 strong 0.90" in [text for text, _ in facts(view)]


def test_a_job_without_a_sign_of_life_is_warned_of(lab: Project) -> None:
    paths = running(lab, "7")
    (view,) = list_jobs(lab, Selection(), None).views
    assert not view.silent
    assert "heartbeat 0:00 ago" in [text for text, _ in facts(view)]
    assert not any("heartbeat" in text for text, _ in facts(view, ages=False))
    then = time.time() - 720
    os.utime(paths.attempts / "000001.json", (then, then))
    (view,) = list_jobs(lab, Selection(), None).views
    assert view.silent
    assert ("no heartbeat for 12:00", "bold red") in facts(view)
    assert view.as_dict()["sign_of_life_s"] == pytest.approx(720, abs=5)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_longer_than_the_terminal(lab: Project, width: int) -> None:
    running(lab, "7", nodelist="tcml-node[37-39]", user="stud421", name="a_very_long_name_of_an_experiment")
    local = job(lab, "local-20260203-091422-123", "an_experiment_with_a_long_name", "started")
    change(local, cluster="local", about="horizon 9 instead of 18, " * 5)
    listing = list_jobs(lab, Selection(), None)
    lines = queue_lines(listing.views, width)
    assert max(text.cell_len for text in lines) <= width
    assert any("-> backprop without shaping" in text.plain for text in lines)
    assert sum(text.plain.startswith("7 ") for text in lines) == 1


def test_a_pasted_table_is_taken_in_by_notes_import(lab: Project) -> None:
    running(lab, "1971498")
    change(lab.job("1971498"), about="backprop without shaping")
    queue(lab, line("1971498", "RUNNING"), line("1971499_[0-3]", "PENDING", nodelist="", reason="Priority"))
    listing = list_jobs(lab, Selection(), None)
    text = queue_markdown([*listing.views, *listing.foreign])
    assert text.startswith("```\nJOBID ")
    first = pasted_lines(text.encode())[0]
    assert first.job_id == "1971498"
    assert first.facts == "week hockey_s stud421 R 10:00:00 1 tcml-node37"
    assert first.what.startswith("backprop without shaping · step 40,000/100,000 (40 %) · return −4.00")
    assert "heartbeat" not in text


def test_filters(lab: Project) -> None:
    job(lab, "1", "alpha", "started", "finished")
    change(job(lab, "2", "beta", "started", "failed"), resources={"partition": "week,month"})
    change(job(lab, "3", "beta"), resources={"partition": "day"})
    old = (datetime.now().astimezone() - timedelta(days=9)).isoformat()
    change(job(lab, "4", "beta", "started", "finished"), cluster="local", submitted_at=old)
    queue(lab, line("3", "PENDING", partition="day", name="beta"), line("99", "RUNNING"))

    def found(**wanted: Any) -> list[str]:
        listing = list_jobs(lab, Selection(**wanted), None)
        return [view.id for view in (*listing.views, *listing.foreign)]

    assert found() == ["4", "1", "2", "3", "99"]
    assert found(experiment="beta") == ["4", "2", "3"]
    assert found(partition="month") == ["2"]
    assert found(partition="week") == ["2", "99"]
    assert found(partition="local") == ["4"]
    assert found(cluster="local") == ["4"]
    assert found(states=parse_states("active")) == ["3", "99"]
    assert found(states=parse_states("failed,Completed")) == ["4", "1", "2"]
    assert found(since=datetime.now().astimezone() - timedelta(days=1)) == ["1", "2", "3"]
    assert found(ids=["2", "3"], states=parse_states("pending")) == ["3"]
    assert found(mine=True) == (["4", "1", "2", "3", "99"] if lab.job("1").folder.owner() == person() else ["99"])
    newest = list_jobs(lab, Selection(states=parse_states("over")), 1)
    assert ([view.id for view in newest.views], newest.left_out, newest.known) == (["2"], 2, 4)
    with pytest.raises(UsageError, match="'fialed' is no state; there are pending, running"):
        parse_states("fialed")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--json", "--md"], "give one of them"),
        (["--watch", "5", "--json"], "--watch is for looking on"),
        (["--state", "runing"], "is no state"),
        (["--since", "yesterday"], "is no time"),
    ],
)
def test_mistakes(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(lab.root))
    assert main(["status", *words]) == 2
    assert said in capsys.readouterr().err


def test_an_id_is_not_taken_for_the_seconds_of_watch(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["status", "--watch", "1971498"])
    assert stop.value.code == 2
    assert "job ids stand before --watch" in capsys.readouterr().err


def test_watch_ends_with_ctrl_c_and_survives_that_slurm_goes_away(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(lab.root))
    monkeypatch.setattr("tdmpc_lab.app.queue.status.ASK_S", 0.0)
    running(lab, "7")
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        (lab.root / "bin" / "squeue").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("tdmpc_lab.cli.queue._pause", sleep)
    monkeypatch.setattr("tdmpc_lab.cli.queue._LEAST_S", 0.0)
    assert main(["status", "--watch", "0"]) == 0
    first, second = capsys.readouterr().out.split("\n\n")[:2]
    assert "reaches 90 % before the limit" in first
    assert "the scheduler can't be reached" in second
    assert "reaches" not in second


def test_a_folder_of_somebody_elses_is_left_out_by_mine(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    job(lab, "1", "alpha", "started", "finished")
    monkeypatch.setattr("tdmpc_lab.app.queue.status.person", lambda: "somebody_else")
    assert list_jobs(lab, Selection(mine=True), None).views == []


def test_without_jobs_a_spec_that_is_there_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (project / "experiments").glob("*.yaml"):
        path.unlink()
    assert main(["status"]) == 0
    assert "no jobs yet; write a spec, then: tdmpc-lab submit experiments/NAME.yaml" in capsys.readouterr().out
    for name in ("zoo", "baseline", "quickstart"):
        (project / "experiments" / f"{name}.yaml").touch()
    assert main(["status"]) == 0
    assert "no jobs yet; start one with: tdmpc-lab submit experiments/quickstart.yaml" in capsys.readouterr().out
    (project / "experiments" / "quickstart.yaml").unlink()
    assert main(["status"]) == 0
    assert "submit experiments/baseline.yaml" in capsys.readouterr().out
