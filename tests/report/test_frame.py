from __future__ import annotations

import pytest

from tdmpc_lab.errors import UsageError
from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord, prepare_job
from tdmpc_lab.report import load


def make_job(project: Project, job_id: str, seed: int, rows: list[dict]) -> None:
    def record(new_id: str) -> JobRecord:
        return JobRecord(
            id=new_id,
            experiment="quick",
            group="abc",
            seed=seed,
            cluster="slurm",
            spec_file="a.yaml",
            submitted_at=f"2026-02-0{seed}T09:14:22+00:00",
            steps_total=10,
        )

    paths = prepare_job(project, job_id, "x", "y", record)
    for row in rows:
        append_jsonl(paths.metrics, row)


def test_rows_of_all_jobs_in_one_table(project):
    assert load().empty
    here = Project(project)
    make_job(here, "101", 1, [{"step": 5, "split": "eval", "return_mean": -3.0}, {"step": 9, "split": "train"}])
    make_job(here, "102", 2, [{"step": 5, "split": "eval", "return_mean": float("inf")}])
    table = load()
    assert list(table["job"]) == ["101", "101", "102"]
    assert list(table.columns[:4]) == ["job", "experiment", "group", "seed"]
    means = table[table.split == "eval"].groupby("seed")["return_mean"].mean()
    assert means.to_dict() == {1: -3.0, 2: float("inf")}
    assert len(load(["102"])) == 1
    assert len(load("quick")) == 3
    assert list(load("101", split="eval").columns) == [
        "job",
        "experiment",
        "group",
        "seed",
        "step",
        "split",
        "return_mean",
    ]
    assert list(load(["101"], split="train")["step"]) == [9]
    with pytest.raises(UsageError, match="no job 999"):
        load(["999"])


def test_rows_that_a_later_attempt_did_again_are_left_out(project):
    rows = [{"step": step, "split": "train", "attempt": attempt} for step, attempt in ((10, 1), (20, 1), (20, 2))]
    make_job(Project(project), "101", 1, rows)
    assert load()[["step", "attempt"]].values.tolist() == [[10, 1], [20, 2]]
