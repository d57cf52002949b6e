"""A verdict and the MLflow run of its job: whichever comes first, the run has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tdmpc_lab.app.joblog.edit import judge, tell_mlflow
from tdmpc_lab.app.joblog.write import verdict_tags
from tdmpc_lab.app.mlflow import mirror as mirroring
from tdmpc_lab.config.schema import EnvConfig, Spec
from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord, read_record, write_record
from tdmpc_lab.tracking import run as later

BAD = {"verdict": "bad", "verdict_cause": "agent.horizon=18"}
GOOD = {"verdict": "good", "verdict_cause": ""}


@pytest.fixture
def lab(project: Path) -> Project:
    lab = Project(project)
    for job in ("7_0", "7_1", "8"):
        lab.job(job).folder.mkdir(parents=True)
        array, _, task = job.partition("_")
        record = JobRecord(
            id=job,
            array_id=array if task else None,
            array_task=int(task) if task else None,
            experiment="quick",
            group="0",
            seed=1,
            cluster="slurm",
            spec_file="experiments/quick.yaml",
            submitted_at="2026-02-03T09:14:22+01:00",
            steps_total=100,
        )
        write_record(lab.job(job), record)
    lab.notes.mkdir(exist_ok=True)
    (lab.note("7")).write_bytes(b"")
    return lab


def test_a_task_has_the_verdict_of_its_array_unless_it_has_one_of_its_own(lab: Project) -> None:
    assert verdict_tags(lab, "7_0") == {}
    judge(lab, "7", "bad", "too far", ["agent.horizon=18"])
    judge(lab, "7_1", "good", "but this one")
    assert (verdict_tags(lab, "7_0"), verdict_tags(lab, "7_1"), verdict_tags(lab, "8")) == (BAD, GOOD, {})


def test_a_run_made_after_the_verdict_gets_it(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Mirror:
        def __init__(self, *_: Any, on_run: Callable[[str, str], None], **__: Any) -> None:
            self.on_run, self.tags = on_run, dict[str, str]()
            made.append(self)

        def start(self) -> Mirror:
            return self

        def set_tags(self, tags: Mapping[str, str]) -> None:
            self.tags |= tags

    monkeypatch.setattr(mirroring, "MlflowMirror", Mirror)
    paths = lab.job("8")
    mirroring.start_mirror(lab, paths, read_record(paths), Spec(name="quick", env=EnvConfig(id="Pendulum-v1")))
    judge(lab, "8", "bad", "too far", ["agent.horizon=18"])
    made[0].on_run("run", "1")
    assert made[0].tags == BAD
    assert json.loads(paths.events.read_text())["event"] == "tracking"


def test_a_verdict_on_an_array_is_told_to_the_runs_of_its_tasks(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Mapping[str, str]] = {}

    def describe(_uri: str, _root: Path, record: JobRecord, _text: str, tags: Mapping[str, str]) -> None:
        told[record.id] = tags

    monkeypatch.setattr(later, "describe_run", describe)
    lab.note("7_0").write_text("##### 7_0\n")
    judge(lab, "7_1", "good", "but this one")
    said, note = judge(lab, "7", "bad", "too far", ["agent.horizon=18"])
    assert tell_mlflow(lab, "7", note, said) is None and told == {}  # no task has a run yet
    for task in ("7_0", "7_1"):
        append_jsonl(lab.job(task).events, {"event": "tracking", "run_id": "r", "experiment_id": "1", "store": "x"})
    lab.note("7_0").unlink(missing_ok=True)
    assert "7_0" in str(tell_mlflow(lab, "7", note, said))  # its note is gone: told
    lab.note("7_0").write_text("##### 7_0\n")
    assert tell_mlflow(lab, "7", note, said) is None
    assert told == {"7_0": BAD, "7_1": GOOD}
