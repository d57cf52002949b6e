"""The words that jobs are chosen by."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdmpc_lab.errors import RecordError, SpecError, UsageError
from tdmpc_lab.jobs.find import select_jobs, what_there_is
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord, write_record

IDS = {
    "101": ("hockey_small", "aaaaaa1111"),
    "102": ("hockey_big", "bbbbbb2222"),
    "7_0": ("back", "1234567890"),
    "7_1": ("back", "1234567890"),
    "local-20260203-091422-123": ("back_noshape", "cccccc3333"),
}


@pytest.fixture
def lab(project: Path) -> Project:
    here = Project(project)
    for minute, (job_id, (experiment, group)) in enumerate(IDS.items()):
        here.job(job_id).folder.mkdir(parents=True)
        record = JobRecord(
            id=job_id, experiment=experiment, group=group, seed=1, cluster="slurm", spec_file="a.yaml", steps_total=1,
            submitted_at=f"2026-02-03T09:{minute:02}:00+01:00",
        )  # fmt: skip
        write_record(here.job(job_id), record)
    return here


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["hockey_big", "hockey_small"], ["102", "101"]),
        (["hockey"], ["101", "102"]),  # a family
        (["back"], ["7_0", "7_1"]),  # a name before a family
        (["back*"], ["7_0", "7_1", "local-20260203-091422-123"]),
        (["7"], ["7_0", "7_1"]),
        (["7_[0-1]", "7_1"], ["7_0", "7_1"]),
        (["aaaaaa", "bbbbbb2222"], ["101", "102"]),
        (["1234567890"], ["7_0", "7_1"]),  # a group that could be an id
        (["091422-123"], ["local-20260203-091422-123"]),
        (["last"], ["local-20260203-091422-123"]),
        (["experiments/back.yaml"], ["7_0", "7_1"]),
        (["back.yaml"], ["7_0", "7_1"]),
    ],
)
def test_what_a_word_means(lab: Project, words: list[str], ids: list[str]) -> None:
    (lab.experiments / "back.yaml").write_text("env: {id: Pendulum-v1}\n")
    assert [paths.id for paths, _ in select_jobs(lab, words)] == ids


def test_a_word_that_means_nothing_tells_what_there_is(lab: Project) -> None:
    (lab.experiments / "new.yaml").write_text("env: {id: Pendulum-v1}\n")
    with pytest.raises(
        UsageError, match=r"did you mean hockey_big\? experiments with jobs, newest first: back_noshape"
    ):
        select_jobs(lab, ["hockey_bg"])
    with pytest.raises(UsageError, match="no job 999 in"):
        select_jobs(lab, ["999"])
    with pytest.raises(UsageError, match="experiment new has no jobs yet"):
        select_jobs(lab, ["experiments/new.yaml"])
    with pytest.raises(SpecError):
        select_jobs(lab, ["experiments/nowhere.yaml"])
    with pytest.raises(UsageError, match=r"'\[x' is no experiment"):
        select_jobs(lab, ["[x"])
    assert what_there_is(lab) == (
        "experiments with jobs, newest first: back_noshape (1), back (2), hockey_big (1), hockey_small (1)"
    )


def test_a_record_that_can_t_be_read(lab: Project) -> None:
    lab.job("102").record.write_text("{")
    assert [paths.id for paths, _ in select_jobs(lab, ["hockey"])] == ["101"]
    with pytest.raises(RecordError, match="can't be read"):
        select_jobs(lab, ["102"])


def test_a_project_without_jobs(project: Path) -> None:
    with pytest.raises(UsageError, match="there are no jobs yet"):
        select_jobs(Project(project), ["last"])
    with pytest.raises(UsageError, match="there are no jobs yet"):
        select_jobs(Project(project), ["back"])
