"""`logs`: the end of what a job printed, and what it prints on until its end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from queue_fixtures import job, lab, queue  # noqa: F401 - `lab` is a fixture

from tdmpc_lab.app.queue import logs
from tdmpc_lab.app.queue.logs import Tail, follow
from tdmpc_lab.cli.main import main
from tdmpc_lab.jobs.events import EventLog
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.state import State


@pytest.fixture
def here(lab: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    (lab.root / "experiments").mkdir()
    monkeypatch.chdir(lab.root)
    monkeypatch.setattr(logs, "POLL_S", 0.01)
    monkeypatch.setattr(logs, "_LOOK_S", 0.02)
    monkeypatch.setattr(logs, "ASK_S", 0.02)
    return lab


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 100])
@pytest.mark.parametrize(
    "text", ["", "a", "a\n", "a\nb\rc\nd", "a\n\n\nb\n", "x" * 70_000 + "\n" + "y" * 70_000 + "\nz\n"]
)
def test_the_last_lines_are_those_of_the_file(tmp_path: Path, text: str, lines: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(text.encode())
    tail = Tail(path)
    *ended, torn = text.split("\n")
    whole = [line + "\n" for line in ended] + ([torn] if torn else [])
    assert tail.last(lines).decode() == "".join(whole[len(whole) - min(lines, len(whole)) :])
    with path.open("a") as file:
        file.write("more")
    assert tail.more() == b"more"
    assert tail.more() == b""
    tail.close()


def test_a_file_that_comes_later_is_cut_or_replaced_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "log.out"
    tail = Tail(path)
    assert (tail.last(5), tail.more()) == (b"", b"")
    (tmp_path / "first").write_text("one\n")
    path.symlink_to("first")
    assert tail.more() == b"one\n"
    (tmp_path / "first").write_text("1\n")  # begun again
    assert tail.more() == b"1\n"
    with (tmp_path / "first").open("a") as file:
        file.write("last words\n")
    (tmp_path / "second").write_text("two\n")
    path.unlink()
    path.symlink_to("second")
    assert tail.more() == b"last words\ntwo\n"
    path.unlink()
    assert tail.more() == b""
    tail.close()


def test_a_job_is_followed_from_the_queue_to_its_end(here: Project) -> None:
    paths = job(here, "7")
    queue(here, j7="PENDING")
    written: list[bytes] = []
    said: list[str] = []

    def live() -> None:
        until(lambda: bool(said))
        queue(here, j7="RUNNING")
        EventLog(paths.events).append("started", attempt=1, host="node7", pid=1)
        paths.log_out.write_text("begin\n")
        until(lambda: b"begin\n" in written)
        with paths.log_out.open("a") as file:
            file.write("end\n")
        EventLog(paths.events).append("finished", step=40, attempt=1)

    thread = threading.Thread(target=live)
    thread.start()
    tail = Tail(paths.log_out)
    view = follow(here, "7", tail, written.append, said.append)
    thread.join()
    tail.close()
    assert b"".join(written) == b"begin\nend\n"
    assert said[0].startswith("7 PENDING: ")
    assert view.status is not None
    assert view.status.state is State.COMPLETED


def until(true: object, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_is_printed_and_what_is_only_said(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    paths = job(here, "7", "reference", "started", "finished")
    paths.log_out.write_text("a\nb\nc\n")
    assert main(["logs", "7", "-n", "2"]) == 0
    assert capsys.readouterr() == ("b\nc\n", "")
    assert main(["logs", "last", "--err"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "7 COMPLETED\nlog.err is empty or not there; log.out is not: tdmpc-lab logs 7\n"
    assert main(["logs", "7", "-f"]) == 0
    assert capsys.readouterr() == ("a\nb\nc\n", "7 COMPLETED\n")


def test_a_job_without_a_word_says_how_it_stands(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    job(here, "7")
    queue(here, j7="PENDING")
    assert main(["logs", "7"]) == 0
    assert capsys.readouterr().err.startswith("7 PENDING: ")
    (here.root / "bin" / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert main(["logs", "7"]) == 3
    assert "SLURM could not be asked" in capsys.readouterr().err


def test_one_task_of_an_array_is_to_be_named(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    for task in range(7):
        job(here, f"20_{task}").log_out.write_text(f"task {task}\n")
    assert main(["logs", "20"]) == 2
    assert (
        "20 has 7 tasks, each with its own log: name one of 20_0, 20_1, 20_2, 20_3, 20_4, …" in capsys.readouterr().err
    )
    assert main(["logs", "20_3"]) == 0
    assert capsys.readouterr().out == "task 3\n"
    assert main(["logs", "20_3", "-n", "-1"]) == 2
    assert main(["logs", "21"]) == 2


def test_the_end_of_the_log_can_be_piped_away(here: Project) -> None:
    job(here, "7", "reference", "started", "finished").log_out.write_bytes(b"\xff\xfe not text\n")
    done = subprocess.run([sys.executable, "-m", "tdmpc_lab", "logs", "7"], capture_output=True, check=True)
    assert done.stdout == b"\xff\xfe not text\n"
