"""`show`: what is gathered about a job, and what is said when parts of it are missing or broken."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from queue_fixtures import change, job, lab, queue  # noqa: F401 - `lab` is a fixture

from tdmpc_lab.app.joblog.edit import add_words, judge
from tdmpc_lab.app.queue.show import JobPage, attempts_of, commands, job_page, latest_values
from tdmpc_lab.app.queue.status import JobView
from tdmpc_lab.cli.main import main
from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.text import sparkline

GAMES = {"draw_strong": 0.1, "win_low_strong": 0.6, "win_high_strong": 0.97, "return_mean": 7.5, "episodes": 20}


def event(second: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"time": f"2026-02-03T09:00:{second:02}+00:00", "event": kind, **fields}


EVENTS = [
    event(0, "started", host="node1", attempt=1),
    event(5, "ready", device="cuda", gpu="RTX 2080 Ti", threads=4, torch="2.13.0"),
    event(6, "tracking", run_id="abc", experiment_id="1", store="http://mlflow:5000"),
    event(10, "preempted", why="time limit", step=1200, attempt=1),
    event(20, "started", host="node2", attempt=2),
    event(30, "warning", message="the note\nwas not written"),
    event(40, "started", host="node3", attempt=3),
    event(50, "failed", cause="NaN in loss/reward", traceback="Traceback …", step=2400, attempt=3),
]


def a_job(project: Project) -> None:
    paths = job(project, "7")
    change(paths, about="horizon 9", why="is 18 too long?", compare_to="baseline", diff=("agent.horizon 18 → 9",))
    for row in EVENTS:
        append_jsonl(paths.events, row)
    append_jsonl(paths.metrics, {"step": 100, "split": "train", "attempt": 1, "return": -4.0, "loss/total": 0.5})
    for step, win in ((1000, 0.1), (2000, 0.85)):
        append_jsonl(paths.metrics, {"step": step, "split": "eval", "attempt": 1, "win_strong": win, **GAMES})
    append_jsonl(paths.metrics, {"step": 2400, "split": "train", "attempt": 3, "loss/total": 0.25, "updates": 2000})
    paths.checkpoints.mkdir()
    for step in (1200, 2400):
        (paths.checkpoints / f"step_{step:09d}.pt").write_bytes(b"x" * 2048)
    paths.videos.mkdir()
    (paths.videos / "step_000002000.mp4").write_bytes(b"x")


def page_of(project: Project, job_id: str) -> JobPage:
    page = job_page(project, job_id)
    assert isinstance(page, JobPage)
    return page


def test_all_about_a_job(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(lab.root))
    a_job(lab)
    add_words(lab, "7", "the puck sticks to the wall")
    judge(lab, "7", "bad", "because it looks too far ahead")
    assert main(["show", "7"]) == 0
    text = capsys.readouterr().out
    for piece in (
        "7  FAILED",
        "why         is 18 too long?",
        "vs baseline agent.horizon 18 → 9",
        "NaN in loss/reward",
        "1 on node1 from 2026-02-03",
        "preempted (time limit) at step 1,200",
        "for 0:10: left no word",
        "RTX 2080 Ti · 4 threads · torch 2.13.0",
        "step 2,400 · return −4.00 · loss/total 0.25 · updates 2,000",
        "vs strong   ▁█  0.1 → 0.85, best 0.85",
        "0.85 [0.60, 0.97]",
        "step 2,400, 2.0 KiB, jobs/7/checkpoints/step_000002400.pt",
        "jobs/7/videos/step_000002000.mp4",
        "run abc · http://mlflow:5000/#/experiments/1/runs/abc",
        "- the puck sticks to the wall",
        "--> bad: because it looks too far ahead",
        "warning     the note was not written",
        "Traceback …",
        "tdmpc-lab logs --err 7",
    ):
        assert piece in text, piece
    assert "tdmpc-lab verdict" not in text
    assert main(["show", "7", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["state"] == "FAILED"
    assert [attempt["ending"] for attempt in document["attempts"]] == [
        "preempted (time limit) at step 1,200",
        "left no word",
        "failed (NaN in loss/reward) at step 2,400",
    ]
    assert [row["step"] for row in document["evaluations"]] == [1000, 2000]
    assert [checkpoint["step"] for checkpoint in document["checkpoints"]] == [1200, 2400]
    assert document["verdict"]["verdict"] == "bad"
    assert document["words"] == ["- the puck sticks to the wall"]
    assert document["problems"] == []


@pytest.mark.parametrize("width", ["40", "80"])
def test_a_page_fits_the_terminal(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    width: str,
) -> None:
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(lab.root))
    monkeypatch.setattr("tdmpc_lab.cli.pages.WIDTH_OF_A_FILE", int(width))
    a_job(lab)
    change(lab.job("7"), about="a long line about it " * 20)
    assert main(["show", "7"]) == 0
    page, _, told = capsys.readouterr().out.partition("continue with")
    assert "tdmpc-lab rerun 7" in told
    assert max(map(len, page.splitlines())) <= int(width)


def test_what_can_be_done_depends_on_the_state(lab: Project) -> None:
    a_job(lab)
    job(lab, "8", "reference", "started")
    job(lab, "9", "reference", "started", "finished")
    job(lab, "10")
    queue(lab, j8="RUNNING", j10="PENDING")

    def words(job_id: str) -> list[str]:
        return [command.removeprefix("tdmpc-lab ") for command, _ in commands(page_of(lab, job_id))]

    assert "compare 7 baseline" in words("7")
    assert [word for word in words("7") if word.startswith(("resume", "logs"))] == [
        "logs 7",
        "logs --err 7",
        "resume 7 --steps 2000",
    ]
    assert words("8")[:4] == ["logs -f 8", "status 8 --watch", "wait 8", "cancel --save 8"]
    assert "cancel 10" in words("10")
    assert not any(word.startswith(("resume", "eval")) for word in words("9"))  # it left no checkpoint
    assert "rerun 9" in words("9")


def test_what_the_page_tells_can_be_typed(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from tdmpc_lab.cli.main import parse

    a_job(lab)
    job(lab, "8", "reference", "started")
    queue(lab, j8="RUNNING")
    for job_id in ("7", "8"):
        for command, _ in commands(page_of(lab, job_id)):
            words = command.replace('"…"', "x").replace('"because …"', "y").split()
            assert parse(words[1:]).command == words[1]


def test_damaged_files_cost_their_part_only(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(lab.root))
    a_job(lab)
    with lab.job("7").metrics.open("a") as file:
        file.write("no row\n")
    page = page_of(lab, "7")
    assert len(page.problems) == 1
    assert "metrics.jsonl:5" in page.problems[0]
    assert len(page.attempts) == 3
    assert main(["show", "7"]) == 0
    assert "metrics.jsonl:5" in capsys.readouterr().out
    lab.job("7").record.write_text("torn")
    assert isinstance(job_page(lab, "7"), JobView)
    assert main(["show", "7"]) == 1
    assert "job 7 can't be read" in capsys.readouterr().err


def test_an_array_is_a_line_per_task(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(lab.root))
    for task, kinds in enumerate((("started", "finished"), ("started", "failed"), ())):
        sweep = {"index": task, "count": 3, "point": {"agent.horizon": 4 + task}}
        change(job(lab, f"20_{task}", "sweep", *kinds), sweep=sweep, array_id="20", array_task=task)
    queue(lab, j20_2="PENDING")
    lab.job("20_1").record.write_text("torn")
    assert main(["show", "20"]) == 0
    text = capsys.readouterr().out
    assert "20  1 COMPLETED, 1 UNKNOWN, 1 PENDING" in text
    assert "agent.horizon=6" in text
    assert "tdmpc-lab wait 20" in text
    assert "tdmpc-lab show 20_1" in text
    assert main(["show", "20_[0,2]", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [task["id"] for task in document["tasks"]] == ["20_0", "20_2"]
    assert main(["show", "20_2"]) == 0
    assert "sweep       agent.horizon=6 (job 3 of 3)" in capsys.readouterr().out


def test_a_job_of_a_hand_written_log_and_no_job(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(lab.root))
    lab.notes.mkdir()
    lab.note("1971519").write_text("##### 1971519 - killed\n- run with backprop\n--> fucked\n")
    assert main(["show", "1971519"]) == 0
    assert "- run with backprop" in capsys.readouterr().out
    assert main(["show", "1971519", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "bad"
    assert main(["show", "1971520"]) == 2
    assert "no job 1971520" in capsys.readouterr().err


def test_slurm_away_is_told_by_the_exit_code(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(lab.root))
    job(lab, "7", "reference", "started")
    (lab.root / "bin" / "squeue").unlink()
    assert main(["show", "7"]) == 3
    shown = capsys.readouterr()
    assert "SLURM could not be asked" in shown.err
    assert "7  RUNNING" in shown.out


def test_attempts() -> None:
    assert attempts_of([], goes_on=True) == []
    only = [event(0, "started", host="node1")]
    (running,) = attempts_of(only, goes_on=True)
    assert (running.number, running.ended_at, running.ending) == (1, None, "")
    (gone,) = attempts_of(only, goes_on=False)
    assert gone.ending == "left no word"
    sign = datetime(2026, 2, 3, 10, tzinfo=UTC)
    (killed,) = attempts_of(only, {1: sign}.get, goes_on=False)
    assert killed.ended_at == sign
    assert gone.as_dict()["started_at"] == "2026-02-03T09:00:00+00:00"


def test_latest_values() -> None:
    rows = [{"split": "train", "a": 1, "b": "x", "attempt": 1}, {"split": "eval", "a": 9}, {"split": "train", "c": 0.5}]
    assert latest_values(rows) == {"a": 1, "c": 0.5}


@pytest.mark.parametrize(
    ("values", "line"),
    [([], ""), ([1.0], "▁"), ([2, 2], "▁▁"), ([0, 1, float("nan"), 0.5], "▁█ ▅"), (list(range(100)), "▁▂▃▅▆▇█")],
)
def test_sparkline(values: list[float], line: str) -> None:
    assert sparkline(values, 7) == line
