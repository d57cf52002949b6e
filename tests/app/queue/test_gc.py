"""`gc`: what is removed, and what is not whatever else is asked."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
import time
import zipfile
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from queue_fixtures import job, lab, queue  # noqa: F401 - `lab` is a fixture

from tdmpc_lab.agent import Episode
from tdmpc_lab.agent.replay import Replay
from tdmpc_lab.app.queue import gc as cleaning
from tdmpc_lab.app.queue.gc import Leftover, find_leftovers, remove
from tdmpc_lab.cli.main import main
from tdmpc_lab.errors import UsageError
from tdmpc_lab.files import append_jsonl, write_atomic
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import read_record
from tdmpc_lab.launch.lease import Lease
from tdmpc_lab.text import size_text
from tdmpc_lab.training.checkpoints import CheckpointStore

DONE = ("started", "finished")


def change(paths: JobPaths, **fields: Any) -> None:
    write_atomic(paths.record, json.dumps(asdict(dataclasses.replace(read_record(paths), **fields))))


def checkpoint(folder: Path, step: int, episodes: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"step_{step:09d}.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02X" + episodes.encode() + b"q\x01" + b"x" * 1000)
    return path


def with_checkpoints(project: Project, job_id: str, *events: str, steps: tuple[int, ...] = (10, 20, 30)) -> JobPaths:
    paths = job(project, job_id, "reference", *events)
    for step in steps:
        checkpoint(paths.checkpoints, step)
    return paths


def names(found: list[Leftover]) -> list[str]:
    return [f"{leftover.kind} {leftover.job or ''} {leftover.path.name}" for leftover in found]


def old(path: Path, hours: float = 2) -> Path:
    then = time.time() - 3600 * hours
    os.utime(path, (then, then), follow_symlinks=False)
    return path


def everything(project: Project) -> list[str]:
    return sorted(str(path.relative_to(project.root)) for path in project.root.rglob("*"))


def test_old_checkpoints_of_jobs_that_are_over(lab: Project) -> None:
    with_checkpoints(lab, "7", *DONE)
    with_checkpoints(lab, "8", "started", "failed", steps=(10,))
    with_checkpoints(lab, "9", "started")  # runs
    with_checkpoints(lab, "10", *DONE)  # its process still closes
    with_checkpoints(lab, "11", "started")  # nobody knows
    queue(lab, j9="RUNNING", j10="COMPLETING")
    old_ones = ["checkpoint 7 step_000000010.pt", "checkpoint 7 step_000000020.pt"]
    assert names(find_leftovers(lab).leftovers) == old_ones
    assert names(find_leftovers(lab, keep=2).leftovers) == old_ones[:1]
    assert names(find_leftovers(lab, ["8", "9"]).leftovers) == []
    leftovers = find_leftovers(lab).leftovers
    assert remove(lab, leftovers) == (leftovers, [])
    assert [path.name for path in lab.job("7").checkpoints.iterdir()] == ["step_000000030.pt"]
    assert find_leftovers(lab).leftovers == []
    assert remove(lab, leftovers) == ([], [])


def test_a_local_job_whose_supervisor_is_still_at_it(lab: Project) -> None:
    paths = with_checkpoints(lab, "local-20260203-091422-123", *DONE)
    change(paths, cluster="local")
    with Lease.take(paths):
        assert find_leftovers(lab).leftovers == []
    assert len(find_leftovers(lab).leftovers) == 2


def test_what_others_need_stays(lab: Project) -> None:
    for job_id in ("7", "8", "1000", "1001"):
        with_checkpoints(lab, job_id, *DONE)
    change(job(lab, "20"), parent="7")
    job(lab, "21").resolved.write_text("env:\n  opponent: {1000: 0.5, weak: 0.5}\n")
    lab.experiments.mkdir()
    (lab.experiments / "a.yaml").write_text("env: {opponent: jobs/1001/checkpoints/step_000000010.pt}\n")
    append_jsonl(lab.job("8").metrics, {"step": 10, "split": "eval", "return_mean": -1.0})
    append_jsonl(lab.job("8").metrics, {"step": 20, "split": "eval", "return_mean": 0.0})
    append_jsonl(lab.job("8").metrics, {"step": 30, "split": "eval", "return_mean": -2.0})
    queue(lab, j20="PENDING", j21="PENDING")
    assert names(find_leftovers(lab).leftovers) == [
        "checkpoint 8 step_000000010.pt",
        "checkpoint 1001 step_000000020.pt",
    ]
    queue(lab, j20="CANCELLED", j21="CANCELLED")
    assert len(find_leftovers(lab).leftovers) == 6


def test_the_best_is_by_games_won(lab: Project) -> None:
    paths = with_checkpoints(lab, "7", *DONE)
    for step, win in ((10, 0.9), (20, 0.2), (30, 0.5)):
        append_jsonl(paths.metrics, {"step": step, "split": "eval", "win": win, "return_mean": -step})
    assert names(find_leftovers(lab).leftovers) == ["checkpoint 7 step_000000020.pt"]


def test_where_the_newest_is_torn_the_older_ones_stay(lab: Project) -> None:
    paths = with_checkpoints(lab, "7", *DONE)
    (paths.checkpoints / "step_000000030.pt").write_bytes(b"torn")
    found = find_leftovers(lab)
    assert found.leftovers == []
    assert found.left_alone == ["7: not all of its newest checkpoint can be read; the older ones stay"]
    whole = checkpoint(paths.checkpoints, 30)
    data = bytearray(whole.read_bytes())
    data[200] ^= 1  # one bit of its content
    whole.write_bytes(data)
    assert find_leftovers(lab).leftovers == []


def test_episodes_stay_with_the_checkpoints_that_name_them(lab: Project) -> None:
    paths = job(lab, "7", "reference", *DONE)
    first, second, third = (f"episodes_{n:09d}-{n + 1:09d}_0123456789ab.pt" for n in range(3))
    checkpoint(paths.checkpoints, 10, first)
    checkpoint(paths.checkpoints, 20, f"{second} {third}")
    for name in (first, second, third):
        (paths.checkpoints / name).write_bytes(b"x" * 10)
    assert names(find_leftovers(lab).leftovers) == ["checkpoint 7 step_000000010.pt", f"episodes 7 {first}"]
    assert find_leftovers(lab, keep=2).leftovers == []
    (paths.checkpoints / third).unlink()
    found = find_leftovers(lab)
    assert (found.leftovers, len(found.left_alone)) == ([], 1)
    real = make_checkpoint(paths.checkpoints)
    assert names(find_leftovers(lab).leftovers) == [
        *("checkpoint 7 step_000000010.pt", "checkpoint 7 step_000000020.pt"),
        *(f"episodes 7 {first}", f"episodes 7 {second}"),
    ]
    assert real in set(paths.checkpoints.iterdir())


def make_checkpoint(folder: Path) -> Path:
    """A checkpoint as jobs write it, with the episodes of a replay in a file beside it; that file."""
    replay = Replay(capacity=100, observation_dim=1, action_dim=1, horizon=1, device=torch.device("cpu"))
    steps = 5
    replay.add(
        Episode(
            observations=np.zeros((steps + 1, 1), np.float32),
            actions=np.zeros((steps, 1), np.float32),
            rewards=np.zeros(steps, np.float32),
            terminated=np.zeros(steps, np.bool_),
            truncated=np.zeros(steps, np.bool_),
        )
    )
    CheckpointStore(folder, keep=9).save(40, {}, replay)
    (file,) = set(folder.glob("episodes_*-000000001_*.pt")) - {folder / "episodes_000000000-000000001_0123456789ab.pt"}
    return file


def test_links_are_not_followed(lab: Project, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}_outside"
    for step in (10, 20, 30):
        outside.mkdir(exist_ok=True)
        checkpoint(outside, step)
    (job(lab, "7", "reference", *DONE).folder / "checkpoints").symlink_to(outside)
    paths = with_checkpoints(lab, "8", *DONE, steps=(30,))
    (paths.checkpoints / "step_000000010.pt").symlink_to(outside / "step_000000010.pt")
    snapshot = lab.snapshots / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (snapshot / "data").symlink_to(outside)
    old(snapshot)
    found = find_leftovers(lab)
    assert names(found.leftovers) == ["snapshot  0123456789abcdef"]
    assert found.left_alone == ["7: its folder of checkpoints is a link"]
    removed, problems = remove(lab, found.leftovers)
    assert (len(removed), problems) == (1, [])
    assert len(list(outside.iterdir())) == 3
    moved = Project(tmp_path / "other")
    moved.root.mkdir()
    moved.jobs.symlink_to(lab.jobs)
    with pytest.raises(UsageError, match="link out of the project"):
        find_leftovers(moved)


def test_snapshots_without_jobs(lab: Project) -> None:
    change(job(lab, "7", "reference", *DONE), snapshot="1111111111111111")
    for name in ("1111111111111111", "2222222222222222", "3333333333333333", ".4444444444444444.new.12.ab.tmp"):
        (lab.snapshots / name).mkdir(parents=True)
        (lab.snapshots / name / "code.py").write_text("x" * 100)
        old(lab.snapshots / name)
    (lab.snapshots / "3333333333333333").touch()  # somebody submits from it now
    found = find_leftovers(lab)
    assert names(found.leftovers) == ["snapshot  .4444444444444444.new.12.ab.tmp", "snapshot  2222222222222222"]
    assert found.size == 200
    (lab.snapshots / "2222222222222222").touch()  # taken up while the question stood
    removed, problems = remove(lab, found.leftovers)
    assert [leftover.path.name for leftover in removed] == [".4444444444444444.new.12.ab.tmp"]
    assert "a job was submitted from it this moment" in problems[0]
    assert (lab.snapshots / "2222222222222222" / "code.py").exists()


def test_what_killed_processes_left(lab: Project) -> None:
    done = with_checkpoints(lab, "7", *DONE, steps=(30,))
    running = with_checkpoints(lab, "8", "started", steps=(30,))
    for paths in (done, running):
        paths.reserve.write_bytes(b"x" * 100)
        (paths.checkpoints / ".step_000000040.pt.123.0a1b2c3d.tmp").write_bytes(b"x" * 50)
    queue(lab, j8="RUNNING", j31="PENDING")
    for job_id in ("30", "31", "32"):
        lab.job(job_id).folder.mkdir()
        lab.job(job_id).resolved.write_text("x: 1\n")
        lab.job(job_id).checkpoints.mkdir()
    lab.job("32").metrics.write_text("{}\n")  # it was a job once
    for job_id in ("30", "31", "32"):
        old(lab.job(job_id).folder)
    submitit = lab.jobs / ".submitit"
    submitit.mkdir()
    for name in ("7_0_log.out", "31_submission.sh", "40_0_log.out", "40_submission.sh", "41_submission.sh", "readme"):
        (submitit / name).write_text("x")
        old(submitit / name)
    (submitit / "41_submission.sh").touch()  # of this moment
    assert names(find_leftovers(lab).leftovers) == [
        "temporary 7 .step_000000040.pt.123.0a1b2c3d.tmp",
        "reserve 7 .reserve",
        "unfinished 30 30",
        "orphan 40 40_0_log.out",
        "orphan 40 40_submission.sh",
    ]


def test_only_jobs_that_ended_long_ago(lab: Project) -> None:
    with_checkpoints(lab, "7", *DONE)
    paths = with_checkpoints(lab, "8")
    then = (datetime.now().astimezone() - timedelta(days=40)).isoformat()
    for kind in DONE:
        append_jsonl(paths.events, {"time": then, "event": kind, "step": 30, "attempt": 1})
    month = datetime.now().astimezone() - timedelta(days=30)
    assert {leftover.job for leftover in find_leftovers(lab, older_than=month).leftovers} == {"8"}


def test_where_slurm_can_not_be_asked_its_young_jobs_are_left_alone(lab: Project) -> None:
    with_checkpoints(lab, "7", *DONE)
    paths = with_checkpoints(lab, "8")
    then = (datetime.now().astimezone() - timedelta(hours=2)).isoformat()
    for kind in DONE:
        append_jsonl(paths.events, {"time": then, "event": kind, "step": 30, "attempt": 1})
    (lab.root / "bin" / "squeue").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    found = find_leftovers(lab)
    assert {leftover.job for leftover in found.leftovers} == {"8"}
    assert found.left_alone == ["7: SLURM could not be asked whether it is still closing"]


def test_nothing_is_removed_unless_told_to(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(lab.root))
    paths = with_checkpoints(lab, "7", *DONE)
    for file in (paths.metrics, paths.log_out, lab.note("7")):
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
    before = everything(lab)
    assert main(["gc"]) == 0
    shown = capsys.readouterr()
    assert "checkpoints that a later one follows, of jobs that are over: 2 things, 2.2 KiB" in shown.out
    assert "jobs/7/checkpoints/step_000000010.pt" in shown.out
    assert "nothing was removed; to remove it: tdmpc-lab gc --yes" in shown.err
    assert everything(lab) == before
    assert main(["gc", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (len(document["leftovers"]), document["removed"]) == (2, [])
    assert document["leftovers"][0] == {
        "kind": "checkpoint",
        "path": "jobs/7/checkpoints/step_000000010.pt",
        "job": "7",
        "bytes": document["leftovers"][0]["bytes"],
    }
    assert main(["gc", "7", "--yes", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["removed"] == [leftover["path"] for leftover in document["leftovers"]]
    assert sorted(set(before) - set(everything(lab))) == document["removed"]
    assert main(["gc", "--remove"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "left"), [("y\n", 1), ("\n", 3), ("", 3)])
def test_a_terminal_is_asked(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    left: int,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TDMPC_LAB_ROOT", str(lab.root))
    paths = with_checkpoints(lab, "7", *DONE)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert main(["gc"]) == 0
    assert len(list(paths.checkpoints.iterdir())) == left


def test_what_can_not_be_removed_is_told(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(lab.root))
    with_checkpoints(lab, "7", *DONE)

    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(cleaning.Path, "unlink", refuse)
    assert main(["gc", "--yes"]) == 1
    assert "error: not removed: " in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--keep", "0"], ["--keep", "x"]])
def test_the_last_checkpoint_always_stays(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["gc", *words])
    assert stop.value.code == 2
    assert "a job's last checkpoint always stays" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 50, "5120.0 TiB")]
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text
