from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tracking_fixtures import (
    JOB_ID,
    expected,
    held,
    info,
    make_job,
    mirror,
    repeated,
    start_attempt,
    write_rows,
)

from tdmpc_lab.files import JsonlWriter, append_jsonl
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.tracking import mirror as mirror_module
from tdmpc_lab.tracking import run as runs
from tdmpc_lab.tracking.points import Sent
from tdmpc_lab.tracking.run import CHANGED_TAG, DESCRIPTION_TAG, JOB_TAG, find_run, run_info
from tdmpc_lab.tracking.store import open_client, store_uri

RETURN = ("train/return",)


def test_a_job_from_start_to_end(tmp_path: Path) -> None:
    paths = make_job(tmp_path)
    paths.resolved.write_text("name: quickstart\n")
    seen: list[tuple[str, str]] = []
    follower = mirror(paths, tmp_path, on_run=lambda run, experiment: seen.append((run, experiment))).start()
    write_rows(paths, range(1, 1200))  # more points than one batch may hold
    report = follower.close(
        "FINISHED",
        description="COMPLETED in 3:12",
        files={"resolved.yaml": paths.resolved, "notes/note.md": paths.resolved, "gone": tmp_path / "gone"},
        timeout_s=60,
    )
    assert (report.problem, report.complete, report.sent_points) == (None, True, 3 * 1199)
    assert held(store_uri(tmp_path), tmp_path, RETURN) == expected(range(1, 1200))

    client = open_client(store_uri(tmp_path), tmp_path)
    assert seen == [(follower.run_id, follower.experiment_id)]
    run = client.get_run(str(follower.run_id))
    assert run.info.status == "FINISHED"
    assert run.data.params == {"agent.horizon": "9", "eval": "null", "env.options": "{}"}
    assert run.data.tags[JOB_TAG] == JOB_ID
    assert run.data.tags[DESCRIPTION_TAG] == "COMPLETED in 3:12"
    assert run.data.tags["group"] == "abc"
    artifacts = tmp_path / "mlruns" / "artifacts" / "quickstart" / run.info.run_id / "artifacts"
    assert {str(p.relative_to(artifacts)) for p in artifacts.rglob("*.*")} == {
        "resolved.yaml",
        "notes/note.md",
    }
    first = min(client.get_metric_history(run.info.run_id, "loss/reward"), key=lambda m: m.step)
    began = datetime(2026, 2, 3, 10, 1, tzinfo=UTC)  # the started event of the attempt
    assert first.timestamp == round((began.timestamp() + 1.01) * 1000)


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_the_outcome_is_the_jobs(status: runs.RunStatus, tmp_path: Path) -> None:
    paths = make_job(tmp_path)
    follower = mirror(paths, tmp_path).start()
    assert follower.close(status, timeout_s=60).complete
    client = open_client(store_uri(tmp_path), tmp_path)
    assert client.get_run(str(follower.run_id)).info.status == status


def test_a_second_attempt_goes_on_in_the_same_run_without_repetitions(tmp_path: Path) -> None:
    paths = make_job(tmp_path)
    write_rows(paths, range(1, 51))
    first = mirror(paths, tmp_path).start()
    assert first.close("FAILED", timeout_s=60).sent_points == 150
    with JsonlWriter(paths.metrics) as writer:  # the attempt continues from the checkpoint at step 30
        writer.truncate_to(sum(len(line) for line in paths.metrics.read_bytes().splitlines(True)[:30]))
    start_attempt(paths, 2)
    write_rows(paths, range(31, 81), attempt=2)
    second = mirror(paths, tmp_path).start()
    report = second.close("FINISHED", timeout_s=60)
    assert second.run_id == first.run_id
    assert (report.complete, report.sent_points) == (True, 90)  # steps 51 to 80
    points = held(store_uri(tmp_path), tmp_path, (*RETURN, "loss/reward"))
    assert repeated(points) == []
    assert points[:80] == expected(range(1, 81))


def test_the_same_mirror_notices_a_file_written_anew(tmp_path: Path) -> None:
    paths = make_job(tmp_path)
    write_rows(paths, range(1, 11))
    follower = mirror(paths, tmp_path).start()
    _wait_until(lambda: follower.report().sent_points == 30)
    text = paths.metrics.read_bytes().splitlines(True)
    paths.metrics.write_bytes(b"".join(text[:5]))
    write_rows(paths, range(6, 31), attempt=2)
    assert follower.close("FINISHED", timeout_s=60).complete
    assert held(store_uri(tmp_path), tmp_path, RETURN) == expected(range(1, 31))


def test_what_gathered_while_the_store_was_away_is_sent_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_job(tmp_path)
    write_rows(paths, range(1, 501))
    monkeypatch.setattr(mirror_module, "PIECE_BYTES", 4096)
    whole, most = runs.send_points, []

    def watched(*args: Any) -> Iterator[int]:
        most.append(len(args[2]))
        return whole(*args)

    monkeypatch.setattr(runs, "send_points", watched)
    assert mirror(paths, tmp_path).start().close("FINISHED", timeout_s=60).sent_points == 1500
    assert 0 < max(most) < 200
    assert held(store_uri(tmp_path), tmp_path, RETURN) == expected(range(1, 501))


def test_nothing_that_mlflow_refuses_keeps_the_rest_from_it(tmp_path: Path) -> None:
    paths = make_job(tmp_path)
    odd = [
        "a%b",
        "ü/ß",
        "日本",
        "🙂",
        "../x",
        "/",
        ".",
        "a b:c",
        "q'\"",
        "\ud800",
        "tab\there",
        "x" * 300,
        "x" * 299 + "y",
    ]
    bad = {"inf": math.inf, "nan": math.nan, "huge": 10**400, "text": "strong", "none": None, "list": [1], "flag": True}
    append_jsonl(
        paths.metrics, {"step": 1, "split": "train", "attempt": 1, "wall_s": 1.0, **dict.fromkeys(odd, 0.5), **bad}
    )
    append_jsonl(
        paths.metrics, {"step": 2, "attempt": 1, "wall_s": -1e12, "early": 1.0, "tiny": 5e-324, "large": 1.7e308}
    )
    long = info(params={"p" * 300: "v" * 7000, "odd ü%": "x\x00y"}, tags={"t" * 300: "w" * 9000, "odd ü%": "z"})
    report = mirror(paths, tmp_path, info=long).start().close("FINISHED", description="d" * 9000, timeout_s=60)
    assert (report.problem, report.complete, report.sent_points) == (None, True, len(odd) + 3)
    client = open_client(store_uri(tmp_path), tmp_path)
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert len(run.data.metrics) == len(odd) + 3
    assert {len(value) for value in run.data.params.values()} == {6000, 3}
    assert {len(run.data.tags[name]) for name in run.data.tags if name.startswith("ttt")} == {8000}
    assert "NaN" in paths.metrics.read_text()  # the truth has it all
    assert "Infinity" in paths.metrics.read_text()


def test_a_request_for_a_run_that_was_given_up_and_came_through_leaves_no_second_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is slow: the client hears nothing of its run, asks again, and in the end there are two."""
    from mlflow import MlflowClient

    paths = make_job(tmp_path)
    write_rows(paths, range(1, 11))
    whole, made = MlflowClient.create_run, []

    def unheard(*args: Any, **kwargs: Any) -> Any:
        made.append(whole(*args, **kwargs))
        if len(made) == 1:
            monkeypatch.setattr(runs, "_runs_of", lambda *_: [])  # nor is it there yet when it is looked for
            raise TimeoutError("no answer in time")
        monkeypatch.setattr(runs, "_runs_of", look)
        return made[-1]

    look = runs._runs_of
    monkeypatch.setattr(MlflowClient, "create_run", unheard)
    report = mirror(paths, tmp_path).start().close("FINISHED", timeout_s=60)
    assert (report.complete, len(made)) == (True, 2)
    assert held(store_uri(tmp_path), tmp_path, RETURN) == expected(range(1, 11))  # of its only run


def test_points_sent_before_a_crash_are_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make_job(tmp_path)
    write_rows(paths, range(1, 501))
    whole = runs.send_points

    batches_sent = []

    def crash(*args: object) -> object:
        for count in whole(*args):  # type: ignore[arg-type]
            if batches_sent:
                raise MemoryError("the process dies here")
            batches_sent.append(count)
            yield count

    monkeypatch.setattr(runs, "send_points", crash)
    first = mirror(paths, tmp_path).start()
    _wait_until(lambda: first.report().sent_points > 0 and first.problem is not None)
    report = first.close("FAILED", timeout_s=0)
    assert not report.complete
    assert "the process dies here" in str(report.problem)
    assert report.sent_points == batches_sent[0] < 1500
    _wait_until(lambda: not first._thread.is_alive())
    monkeypatch.undo()
    assert mirror(paths, tmp_path).start().close("FINISHED", timeout_s=60).complete
    assert held(store_uri(tmp_path), tmp_path, RETURN) == expected(range(1, 501))


def test_points_whose_arrival_was_not_noted_are_sent_again_and_kept_once(tmp_path: Path) -> None:
    paths = make_job(tmp_path)
    write_rows(paths, range(1, 501))
    first = mirror(paths, tmp_path).start()
    assert first.close("FAILED", timeout_s=60).sent_points == 1500
    client = open_client(store_uri(tmp_path), tmp_path)
    client.set_tag(str(first.run_id), runs.SENT_TAG, Sent(attempt=1).to_tag())
    assert mirror(paths, tmp_path).start().close("FINISHED", timeout_s=60).sent_points == 1500
    assert held(store_uri(tmp_path), tmp_path, RETURN) == expected(range(1, 501))


def test_changed_params_are_noted_and_new_ones_added(tmp_path: Path) -> None:
    paths = make_job(tmp_path)
    many = {f"p.{k}": "x" * 7000 for k in range(120)}
    mirror(paths, tmp_path, info=info(params={"a": 1, **many})).start().close("FAILED", timeout_s=60)
    follower = mirror(paths, tmp_path, info=info(params={"a": 2, "b": "new"})).start()
    report = follower.close("FINISHED", timeout_s=60)
    assert (report.problem, report.complete) == (None, True)
    run = open_client(store_uri(tmp_path), tmp_path).get_run(str(follower.run_id))
    assert (run.data.params["a"], run.data.params["b"], len(run.data.params)) == ("1", "new", 122)
    assert len(run.data.params["p.0"]) == 6000
    assert run.data.tags[CHANGED_TAG] == "a: 1 → 2"


def test_a_deleted_experiment_is_taken_out_of_the_trash(tmp_path: Path) -> None:
    paths = make_job(tmp_path)
    client = open_client(store_uri(tmp_path), tmp_path)
    experiment = client.create_experiment("quickstart")
    client.delete_experiment(experiment)
    follower = mirror(paths, tmp_path).start()
    assert follower.close("FINISHED", timeout_s=60).complete
    assert follower.experiment_id == experiment
    assert client.get_experiment(experiment).lifecycle_stage == "active"


def test_a_broken_store_is_said_and_harms_nothing(tmp_path: Path) -> None:
    paths = make_job(tmp_path)
    write_rows(paths, range(3))
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_text("this is no database, and long enough to be noticed" * 100)
    follower = mirror(paths, tmp_path).start()
    _wait_until(lambda: follower.problem is not None)
    begun = time.monotonic()
    report = follower.close("FINISHED", timeout_s=2)
    assert time.monotonic() - begun < 4
    assert (report.complete, report.sent_points) == (False, 0)
    assert report.problem is not None
    assert "is no SQLite database" in report.problem
    assert str(paths.metrics) in report.problem


def test_closing_a_mirror_that_never_started_says_so(tmp_path: Path) -> None:
    report = mirror(make_job(tmp_path), tmp_path).close("FAILED", timeout_s=0.1)
    assert not report.complete
    assert report.problem is not None


def test_what_a_record_says_about_its_run() -> None:
    record = JobRecord(
        id=JOB_ID,
        experiment="quickstart",
        group="0123456789",
        seed=3,
        cluster="local",
        spec_file="x.yaml",
        submitted_at="2026-02-03T09:14:22+00:00",
        steps_total=5,
        git_commit="abc",
        git_dirty=True,
    )
    made = run_info(record, {"train.seed": 3}, attempt=2, node="here", colour="#004488")
    assert made.run_name == "quickstart · 091422-123"
    assert made.tags == {
        JOB_TAG: JOB_ID,
        "group": "0123456789",
        "seed": "3",
        "cluster": "local",
        "git_commit": "abc-dirty",
        "variant": "quickstart",
        "attempt": "2",
        "node": "here",
        "mlflow.runColor": "#004488",
    }


def test_a_run_is_found_by_its_job(tmp_path: Path) -> None:
    paths = make_job(tmp_path)
    follower = mirror(paths, tmp_path).start()
    follower.close("FINISHED", timeout_s=60)
    client = open_client(store_uri(tmp_path), tmp_path)
    found = find_run(client, [str(follower.experiment_id)], JOB_ID)
    assert found is not None
    assert found.info.run_id == follower.run_id
    assert find_run(client, [str(follower.experiment_id)], "1971498") is None


def _wait_until(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
