"""Which files differ from the code of the job that a new one is compared to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from app_fixtures import write_specs

sys.path.append(str(Path(__file__).parents[1] / "jobs"))

from repositories import commit_all, git

from tdmpc_lab.app.code import code_now
from tdmpc_lab.app.submit import plan, prepare
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import read_record

QUICK = "experiments/quick.yaml"


@pytest.fixture
def lab(project: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(project)
    write_specs(project)
    (project / ".gitignore").write_text("jobs/\nnotes/\n__pycache__/\n")
    git(project, "init", "-q")
    commit_all(project)
    return Project(project)


def job(lab: Project, *overrides: str, snapshot: bool = True) -> JobPaths:
    (ready,) = plan(lab, [QUICK], list(overrides), environments=False)
    return prepare(lab, ready, "local", code_now(lab, "local", snapshot=snapshot), None, 1)


def test_files_that_were_changed_are_named_in_record_and_note(lab: Project) -> None:
    first = job(lab)
    (lab.root / "moody_env.py").write_text("# rewritten\n")
    (lab.root / "new.py").write_text("")
    second = job(lab, "compare_to=quick")
    record = read_record(second)
    assert (record.code_against, record.code_changes) == (first.id, ("M moody_env.py", "A new.py"))
    note = lab.note(second.id).read_text()
    assert f"- vs quick: no difference\n- code vs {first.id}: 2 files: M moody_env.py, A new.py\n" in note
    third = job(lab, f"compare_to={second.id}")
    assert f"- code vs {second.id}: the same\n" in lab.note(third.id).read_text()


@pytest.mark.parametrize(("commit", "told"), [(True, ("D moody_env.py",)), (False, None)])
def test_without_snapshots_two_commits_tell_unless_something_is_not_committed(
    lab: Project, commit: bool, told: tuple[str, ...] | None
) -> None:
    first = job(lab, snapshot=False)
    (lab.root / "moody_env.py").unlink()
    if commit:
        commit_all(lab.root)
    record = read_record(job(lab, "compare_to=quick", snapshot=False))
    assert (record.code_against, record.code_changes) == ((first.id, told) if told else (None, ()))


def test_a_job_compared_to_a_spec_has_no_code_to_compare(lab: Project) -> None:
    record = read_record(job(lab, "compare_to=moody"))
    assert (record.compare_to, record.code_against) == ("moody", None)
