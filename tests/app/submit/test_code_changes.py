"""Which files differ from the code of the job that a new one is compared to."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest
from app_fixtures import write_specs

sys.path.append(str(Path(__file__).parents[2] / "jobs"))

from repositories import commit_all, git

from tdmpc_lab.app.submit.code import code_now
from tdmpc_lab.app.submit.submit import plan, prepare
from tdmpc_lab.cli.main import main
from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import read_record
from tdmpc_lab.training.video import write_video

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


def test_what_the_tool_draws_into_the_project_is_no_code(lab: Project) -> None:
    """With the commands themselves: pictures, pages, a video, under any name, new or tracked."""
    for number, horizon in enumerate((3, 4)):
        paths = job(lab, f"agent.horizon={horizon}", f"name=h{horizon}")
        for step in (40, 80):
            row = {"step": step, "split": "eval", "attempt": 1, "wall_s": step, "episodes": 2, "return_mean": number}
            append_jsonl(paths.metrics, row)
    before = code_now(lab, "local")
    assert (before.dirty, before.diff, len(before.left_out)) == (False, None, 0)
    assert main(["rewards", QUICK, "--episodes", "1"]) == 0
    for ending in (".png", ".svg", ".pdf"):
        assert main(["compare", "h3", "h4", "--plot", f"curves{ending}", "--html", "page.html"]) == 0
    assert main(["notes", "--html", "log.html"]) == 0
    frames = [np.full((32, 32, 3), 40 * shade, np.uint8) for shade in range(5)]
    for ending in (".mp4", ".gif"):
        write_video(lab.root / f"film{ending}", frames)
    (lab.root / "quick_rewards.png").rename(lab.root / "experiments" / "rewards of old.png")
    made = git(lab.root, "ls-files", "--others", "--exclude-standard").splitlines()
    assert len(made) == 8, made
    after = code_now(lab, "local")
    assert (after.snapshot, after.dirty, after.diff) == (before.snapshot, False, None)
    kept = lab.snapshots / str(after.snapshot)
    assert (kept / "film.mp4").is_symlink() and (kept / "film.mp4").read_bytes() == (lab.root / "film.mp4").read_bytes()
    with av.open(str(lab.root / "film.gif")) as film:  # the mark has not damaged it
        assert len(list(film.decode(video=0))) == 3
    commit_all(lab.root)
    assert main(["compare", "h3", "h4", "--threshold", "1", "--plot", "curves.png"]) == 0  # another one, in its place
    again = code_now(lab, "local")
    assert (again.snapshot, again.dirty, again.diff) == (before.snapshot, False, None)
    (lab.root / "curves.png").write_bytes(b"a picture that somebody made")
    (lab.root / "curves.py").write_text("# made by tdmpc-lab\n")
    mine = code_now(lab, "local")
    assert mine.dirty and mine.snapshot != before.snapshot
    assert (lab.snapshots / str(mine.snapshot) / "curves.py").is_file()
    assert "new, not tracked by git: curves.py" in str(mine.diff) and "curves.png" in str(mine.diff)
