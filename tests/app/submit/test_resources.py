"""Options that clash are told where they were given; jobs to wait for must be SLURM jobs of this project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tdmpc_lab.app.queue.status import JobView
from tdmpc_lab.app.submit import resources
from tdmpc_lab.app.submit.resources import check_resources, launch_overrides, refuse_profile, settle_dependencies
from tdmpc_lab.app.submit.specs import load_all
from tdmpc_lab.config.loader import LoadedSpec
from tdmpc_lab.errors import SpecError, UsageError
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord, write_record
from tdmpc_lab.jobs.state import JobStatus, State

SPEC = "env: {id: Pendulum-v1}\n"


@pytest.fixture
def lab(project: Path) -> Project:
    return Project(project)


def load(lab: Project, text: str, *overrides: str) -> LoadedSpec:
    (lab.experiments / "a.yaml").write_text(SPEC + text)
    return load_all(lab, ["experiments/a.yaml"], overrides)[0]


def job(lab: Project, job_id: str, cluster: str = "slurm") -> None:
    paths = lab.job(job_id)
    paths.folder.mkdir(parents=True)
    record = JobRecord(
        id=job_id,
        experiment="a",
        group="0123456789",
        seed=1,
        cluster=cluster,
        spec_file="experiments/a.yaml",
        submitted_at="2026-02-03T09:14:22+00:00",
        steps_total=1,
    )
    write_record(paths, record)


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> dict[str, State]:
    """The states that the scheduler would tell, by job id."""
    known: dict[str, State] = {}

    def job_views(_lab: Project, ids: list[str]) -> list[JobView]:
        return [JobView(i, None, JobStatus(state=known[i], steps=1)) for i in ids]

    monkeypatch.setattr(resources, "job_views", job_views)
    return known


def test_clashes_are_told_where_they_were_given(lab: Project) -> None:
    (lab.root / "clusters.yaml").write_text("big:\n  memory: 64G\n  extra:\n    mem-per-cpu: 2G\n")
    items = [
        load(lab, "slurm: {gpus: 1}", "slurm.extra.gres=gpu:2"),
        load(lab, "slurm:\n  extra: {exclusiv: true}\n"),
        load(lab, "slurm: {profile: big}"),
    ]
    with pytest.raises(SpecError) as caught:
        check_resources(items)
    assert [str(problem).split(": ")[:2] for problem in caught.value.problems] == [
        ["command line", "slurm.extra.gres"],
        ["experiments/a.yaml:3", "slurm.extra.exclusiv"],
        [f"{lab.root}/clusters.yaml:4", "slurm.extra.mem-per-cpu"],
    ]


def test_an_option_that_this_sbatch_knows_is_taken(
    lab: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = load(lab, "slurm: {extra: {pyxis-image: x}}")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpecError, match="no option --pyxis-image"):
        check_resources([item])
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho '  -x, --exclusive   alone'\necho '      --pyxis-image=x   an image'\n")
    sbatch.chmod(0o755)
    check_resources([item])
    # Not in its help, and taken all the same; what it would only take for something else is not tried.
    sbatch.write_text('#!/bin/sh\n[ "$1" != --pyxis-image=x ] || exit 0\n[ "$1" = --help ]\n')
    check_resources([item])
    with pytest.raises(SpecError, match="no option --pyxis-imag "):
        check_resources([load(lab, "slurm: {extra: {pyxis-imag: x}}")])
    sbatch.write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(SpecError, match="no option --wra "):
        check_resources([load(lab, "slurm: {extra: {wra: x}}")])


def test_words_of_the_command_line(lab: Project) -> None:
    job(lab, "7")
    job(lab, "8_0")
    assert launch_overrides(lab, None, []) == []
    words = launch_overrides(lab, "tcml", ["7", "afterany:8", "afterok:8_0", "last"])
    assert words == [
        'slurm.profile="tcml"',
        'slurm.after=["afterok:7", "afterany:8", "afterok:8_0", "afterok:8_0"]',
    ]
    assert load(lab, "", words[1]).spec.slurm.after[1] == "afterany:8"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("9", "no job 9 in "),
        ("after:7", "--after after:7: found 'after'; allowed: afterok:ID, afterany:ID, ID"),
        ("local-20260203-091422-123", "is no SLURM job, so SLURM can't wait for it; `tdmpc-lab wait local-"),
        ("7;x", "'7;x' is no job id"),
    ],
)
def test_ids_that_can_not_be_waited_for(lab: Project, text: str, words: str) -> None:
    job(lab, "7")
    job(lab, "local-20260203-091422-123", "local")
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        launch_overrides(lab, None, [text])


def test_a_profile_does_nothing_for_a_job_made_out_of_an_old_one() -> None:
    refuse_profile("7", ["slurm.partition=day", "about=slurm.profile"])
    with pytest.raises(UsageError, match="job 7 has its resources in full"):
        refuse_profile("7", ["train.seed=2", "slurm.profile=tcml"])


def test_jobs_that_are_over_are_not_waited_for(lab: Project, states: dict[str, State]) -> None:
    states |= {
        "1": State.RUNNING,
        "2": State.COMPLETED,
        "3": State.FAILED,
        "4_0": State.COMPLETED,
        "4_1": State.PENDING,
    }
    for name in states:
        job(lab, name)
    item = load(lab, 'slurm: {after: ["1", "2", "afterany:3", "afterok:4", "4_0"]}')
    settled, said = settle_dependencies(lab, item)
    assert settled.spec.slurm.after == ("1", "afterok:4")
    assert [line.split(" (")[0] for line in said] == ["2 is over already", "3 is over already", "4_0 is over already"]


def test_a_job_that_would_never_start_is_refused(lab: Project, states: dict[str, State]) -> None:
    states |= {"3": State.FAILED, "4_0": State.COMPLETED, "4_1": State.TIMEOUT}
    for name in states:
        job(lab, name)
    with pytest.raises(SpecError) as caught:
        settle_dependencies(lab, load(lab, 'slurm:\n  after: ["3", "4", "5"]'))
    assert [str(problem) for problem in caught.value.problems[:2]] == [
        "experiments/a.yaml:3: slurm.after: 3 is FAILED: a job that waits for its success would never start "
        "(write afterany:3, or leave it out)",
        "experiments/a.yaml:3: slurm.after: 4 is TIMEOUT: a job that waits for its success would never start "
        "(write afterany:4, or leave it out)",
    ]
    assert "no job 5" in str(caught.value.problems[2])


def test_the_projects_own_profiles_are_valid() -> None:
    from tdmpc_lab.config.project import check_profiles

    assert check_profiles([Path(__file__).parents[3] / "clusters.yaml"]) == ["tcml"]
    assert os.environ["XDG_CONFIG_HOME"] == os.devnull  # no test sees the profiles of the user who runs it
