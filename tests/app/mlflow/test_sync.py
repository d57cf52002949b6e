"""`sync`, with a real MLflow store: what it sends, what it leaves, and that twice is as good as once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from app_fixtures import write_specs
from sync_fixtures import BEGAN, ENDED, add_job, add_rows, in_store, on_file, the_run

from tdmpc_lab.app.joblog.edit import judge
from tdmpc_lab.app.mlflow.sync import Synced, sync
from tdmpc_lab.cli.main import main
from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.events import EventLog, read_events
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.tracking.run import JOB_TAG
from tdmpc_lab.tracking.store import open_client, store_uri


@pytest.fixture
def lab(project: Path) -> Project:
    write_specs(project)
    return Project(project)


def done(lab: Project) -> dict[str, tuple[str, int]]:
    return {job.id: (job.what, job.points) for job in sync(lab)}


def test_every_value_once_and_the_right_status(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three jobs that nobody told MLflow of; then rows that came later; then an empty store."""
    ends = {"local-20260203-091422-001": ("finished", "FINISHED"), "local-20260203-091422-002": ("failed", "FAILED"),
            "local-20260203-091422-003": ("", "KILLED")}  # fmt: skip
    jobs = [add_job(lab, job_id, *filter(None, [end])) for job_id, (end, _) in ends.items()]
    add_job(lab, "local-20260203-091422-004", started=False)
    for store in ("first", "second"):  # the second is made from the folders alone
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{lab.root}/{store}.db")
        assert done(lab) == dict.fromkeys(ends, ("sent", 600)) | {"local-20260203-091422-004": ("left", 0)}, store
        for paths in jobs:
            assert in_store(lab, paths) == on_file(paths)
            assert max(on_file(paths).values()) == 1
            assert the_run(lab, paths)[1].info.status == ends[paths.id][1]
        events = [len(read_events(paths.events)) for paths in jobs]
        assert done(lab) == dict.fromkeys(ends, ("level", 0)) | {"local-20260203-091422-004": ("left", 0)}
        assert [len(read_events(paths.events)) for paths in jobs] == events
    add_rows(jobs[2], range(300, 310))
    with jobs[2].metrics.open("a") as file:
        file.write('{"step": 310, "split": "tr')  # torn: it died while it wrote
    first, _, third, _ = sync(lab)
    assert (first.what, third.what, third.points) == ("level", "sent", 20)
    assert in_store(lab, jobs[2]) == on_file(jobs[2])
    # The end of a torn line never comes: it must not make the job unlevel for ever.
    assert [job.what for job in sync(lab)] == ["level", "level", "level", "left"]


def test_verdicts_and_later_evaluations_reach_a_new_store(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = add_job(lab, "local-20260203-091422-001", "finished")
    (sent,) = sync(lab)
    assert sent == Synced(paths.id, "sent", 600, "FINISHED")
    judge(lab, paths.id, "bad", "because it looks too far ahead", ["agent.horizon=3"])
    append_jsonl(paths.evals, {"time": "2026-02-04T10:00:00+00:00", "step": 300, "mode": "plan", "return_mean": -7.5})
    for store in ("mlruns/mlflow", "second"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{lab.root}/{store}.db")
        assert [job.what for job in sync(lab)] == ["sent"]
        _, run = the_run(lab, paths)
        assert (run.data.tags["verdict"], run.data.tags["verdict_cause"]) == ("bad", "agent.horizon=3")
        assert run.data.metrics["later/return_mean"] == -7.5
        assert "it looks too far ahead" in run.data.tags["mlflow.note.content"]
        assert [job.what for job in sync(lab)] == ["level"]


def test_a_run_made_anew_has_the_jobs_own_times_and_tags(lab: Project) -> None:
    whole = add_job(lab, "local-20260203-091422-001", "finished")
    killed = add_job(lab, "local-20260203-091422-002")
    assert [job.what for job in sync(lab)] == ["sent", "sent"]
    client, run = the_run(lab, whole)
    assert (run.info.start_time, run.info.end_time) == (ms(BEGAN), ms(ENDED))
    assert run.data.tags["gpu"] == "NVIDIA GeForce RTX 2080 Ti"
    assert (run.data.tags["node"], run.data.tags["attempt"]) == (os.uname().nodename, "1")
    points = client.get_metric_history(run.info.run_id, "train/return")
    assert [p.timestamp for p in points] == [ms(BEGAN) + 100 * step for step in range(300)]
    # The other left no outcome: its last row is its last heartbeat.
    assert the_run(lab, killed)[1].info.end_time == ms(BEGAN) + 29_900


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def test_a_run_that_lacks_a_file_a_param_or_a_tag_is_not_level(lab: Project) -> None:
    paths = add_job(lab, "local-20260203-091422-001", "finished")
    paths.videos.mkdir()
    (paths.videos / "eval_000000299.mp4").write_bytes(b"film")
    client = open_client(store_uri(lab.root), lab.root)
    bare = client.create_run(client.create_experiment("quick"), tags={JOB_TAG: paths.id})  # no params yet
    client.set_terminated(bare.info.run_id, "FINISHED")
    assert [job.what for job in sync(lab)] == ["sent"]
    _, run = the_run(lab, paths)
    assert run.data.params["agent.horizon"] == "3"
    assert [job.what for job in sync(lab)] == ["level"]
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    for name in ("resolved.yaml", "video.mp4", "videos/eval_000000299.mp4"):
        (folder / name).unlink()
        assert [job.what for job in sync(lab)] == ["sent"], name
        assert (folder / name).is_file()
    (folder / "resolved.yaml").write_text("half of")
    client.delete_tag(run.info.run_id, "gpu")
    assert [job.what for job in sync(lab)] == ["sent"]
    assert (folder / "resolved.yaml").read_bytes() == paths.resolved.read_bytes()
    assert "gpu" in the_run(lab, paths)[1].data.tags
    assert in_store(lab, paths) == on_file(paths)
    assert [job.what for job in sync(lab)] == ["level"]


def test_an_empty_second_run_is_deleted_and_one_with_values_left(lab: Project) -> None:
    paths = add_job(lab, "local-20260203-091422-001", "finished")
    assert [job.what for job in sync(lab)] == ["sent"]
    client, run = the_run(lab, paths)
    early = {"experiment_id": run.info.experiment_id, "start_time": 1, "tags": {JOB_TAG: paths.id}}
    empty, people = client.create_run(**early), client.create_run(**early)
    client.log_metric(people.info.run_id, "mine", 1.0)
    assert [job.what for job in sync(lab)] == ["level"]
    left = {found.info.run_id for found in client.search_runs([run.info.experiment_id])}
    assert left == {run.info.run_id, people.info.run_id}
    assert client.get_run(empty.info.run_id).info.lifecycle_stage == "deleted"


def test_two_syncs_at_once_send_everything_once(lab: Project) -> None:
    jobs = [add_job(lab, f"local-20260203-091422-00{n}", "finished", seed=n) for n in range(3)]
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: done(lab), range(2)))
    assert sorted(what for said in both for what, _ in said.values()) == ["level"] * 3 + ["sent"] * 3
    assert all(in_store(lab, paths) == on_file(paths) for paths in jobs)


def test_a_job_that_runs_is_left_alone(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    paths = add_job(lab, "local-20260203-091422-001", started=False)
    alive = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        EventLog(paths.events).append("started", host=os.uname().nodename, pid=alive.pid, attempt=1)
        add_rows(paths, range(5))
        assert main(["sync", paths.id]) == 0
        assert f"{paths.id}: left alone: RUNNING: it sends its values itself" in capsys.readouterr().out
    finally:
        alive.kill()
        alive.wait()
    assert main(["sync", paths.id, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == [{"id": paths.id, "what": "sent", "points": 10, "detail": "KILLED"}]
    assert "1 job brought in sync" in err


def test_a_server_that_is_away_is_told_and_nothing_changes(
    lab: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = add_job(lab, "local-20260203-091422-001", "finished")
    before = paths.events.read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["sync"]) == 3
    said = capsys.readouterr().err
    assert "error: MLflow at http://127.0.0.1:9" in said
    assert "nothing is lost" in said
    assert paths.events.read_bytes() == before


def test_a_job_that_cannot_be_read_does_not_stop_the_others(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    add_job(lab, "local-20260203-091422-001", "finished").resolved.write_text("agent: [")
    good = add_job(lab, "local-20260203-091422-002", "finished")
    lab.notes.mkdir(exist_ok=True)
    lab.note(good.id).write_text("<!-- tdmpc-lab:begin -->\n--> good: because fine\n")  # the end marker is gone
    assert main(["sync"]) == 1
    out, err = capsys.readouterr()
    assert the_run(lab, good)[1].data.tags["verdict"] == "good"
    assert f"{good.id}: sent 600 values, FINISHED" in out
    assert "local-20260203-091422-001: " in err
    assert "resolved.yaml" in err
