"""The code that is kept for jobs: what is in it, what is not, and who shares it."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest
from repositories import commit_all, git

from tdmpc_lab.errors import SnapshotError
from tdmpc_lab.jobs import snapshot as snapshot_module
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.snapshot import take_snapshot, unused_snapshots


@pytest.fixture
def lab(repository: Path) -> Project:
    """A project with a tracked, a new and an ignored module, and what the tool makes."""
    (repository / ".gitignore").write_text("jobs/*\nmlruns/\ndata/\n*.so\n.venv/\n__pycache__/\n")
    for name in ("experiments", "src/mine", "jobs", "notes", "mlruns", "data", ".venv", "__pycache__"):
        (repository / name).mkdir(parents=True)
    (repository / "src/mine/tracked.py").write_text("tracked = 1\n")
    (repository / "notes/1.md").write_text("a note")
    commit_all(repository)
    (repository / "src/mine/new.py").write_text("new = 1\n")
    (repository / "src/mine/fast.so").write_text("binary")
    (repository / "jobs/README.md").write_text("x")
    (repository / "mlruns/mlflow.db").write_text("x")
    (repository / "data/big").write_text("data")
    (repository / ".venv/pyvenv.cfg").write_text("")
    (repository / "__pycache__/a.pyc").write_text("")
    return Project(repository)


def tree(folder: Path) -> dict[str, str]:
    """Files with their text, links with `→` and their target."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"→ {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_text()
    return found


def test_tracked_and_new_files_are_kept_and_ignored_ones_linked(lab: Project) -> None:
    kept = take_snapshot(lab)
    assert kept.folder == lab.root / "jobs/.snapshots" / kept.name
    assert kept.place == PurePosixPath(".")
    assert kept.left_out == ()
    assert tree(kept.folder) == {
        ".gitignore": (lab.root / ".gitignore").read_text(),
        "src/mine/tracked.py": "tracked = 1\n",
        "src/mine/new.py": "new = 1\n",
        "src/mine/fast.so": f"→ {lab.root}/src/mine/fast.so",
        "data": f"→ {lab.root}/data",
    }
    assert (kept.folder / "data/big").read_text() == "data"
    assert PurePosixPath("src/mine") in kept.folders
    assert PurePosixPath("data") not in kept.folders


def test_one_state_is_kept_once_and_a_change_is_another(lab: Project) -> None:
    first = take_snapshot(lab)
    (lab.root / "notes/2.md").write_text("more")
    (lab.root / "data/more").write_text("more")
    commit_all(lab.root)  # the same content, now tracked
    assert take_snapshot(lab).name == first.name

    (lab.root / "src/mine/new.py").write_text("new = 2\n")
    second = take_snapshot(lab)
    assert second.name != first.name
    assert (first.folder / "src/mine/new.py").read_text() == "new = 1\n"
    assert (second.folder / "src/mine/new.py").read_text() == "new = 2\n"
    (lab.root / "src/mine/new.py").write_text("new = 1\n")
    (lab.root / "src/mine/new.py").chmod(0o755)
    third = take_snapshot(lab)
    assert third.name not in (first.name, second.name)
    assert os.access(third.folder / "src/mine/new.py", os.X_OK)
    assert sorted(p.name for p in lab.snapshots.iterdir()) == sorted({first.name, second.name, third.name})


def test_nothing_is_written_when_only_asked(lab: Project) -> None:
    told = take_snapshot(lab, write=False)
    assert not lab.snapshots.exists()
    assert take_snapshot(lab).name == told.name


def test_deleted_files_and_links(lab: Project) -> None:
    (lab.root / "src/mine/tracked.py").unlink()
    (lab.root / "inside").symlink_to("src/mine/new.py")
    (lab.root / "notes_here").symlink_to("notes")
    (lab.root / "outside").symlink_to("../elsewhere")
    (lab.root / "absolute").symlink_to("/etc")
    found = tree(take_snapshot(lab).folder)
    assert "src/mine/tracked.py" not in found
    assert found["inside"] == "→ src/mine/new.py"
    assert found["notes_here"] == f"→ {lab.notes}"
    assert found["outside"] == f"→ {lab.root.parent}/elsewhere"
    assert found["absolute"] == "→ /etc"


def test_large_files_and_secrets_are_left_out_by_name(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "MOST_FILE", 1000)
    monkeypatch.setattr(snapshot_module, "MOST_TOTAL", 1500)
    (lab.root / "large.bin").write_bytes(b"x" * 1001)
    (lab.root / "fits.bin").write_bytes(b"x" * 900)
    (lab.root / "fits_no_more.bin").write_bytes(b"x" * 950)
    (lab.root / ".env").write_text("TOKEN=1")
    (lab.root / "src/mine/credentials.py").write_text("password = 1")
    (lab.root / "deploy").write_text("-----BEGIN PRIV" + "ATE KEY-----\nMIIE\n")
    kept = take_snapshot(lab)
    assert [text.split(" (")[0] for text in sorted(kept.left_out)] == [
        ".env",
        "deploy",
        "fits_no_more.bin",
        "large.bin",
        "src/mine/credentials.py",
    ]
    assert "looks like a secret" in next(text for text in kept.left_out if text.startswith(".env"))
    found = tree(kept.folder)
    assert found["fits.bin"] == "x" * 900
    for name in (".env", "deploy", "large.bin", "fits_no_more.bin", "src/mine/credentials.py"):
        assert found[name] == f"→ {lab.root / name}"  # a job that needs it still finds it


def test_many_at_once_make_one_whole_folder(lab: Project) -> None:
    for number in range(50):
        (lab.root / f"src/mine/m{number}.py").write_text(str(number))
    with ThreadPoolExecutor(8) as pool:
        names = {kept.name for kept in pool.map(lambda _: take_snapshot(lab), range(16))}
    assert len(names) == 1
    assert [p.name for p in lab.snapshots.iterdir()] == list(names)
    assert tree(lab.snapshots / names.pop())["src/mine/m49.py"] == "49"


def test_a_damaged_snapshot_is_mended(lab: Project) -> None:
    kept = take_snapshot(lab)
    (kept.folder / "src/mine/new.py").unlink()
    assert take_snapshot(lab).name == kept.name
    assert (kept.folder / "src/mine/new.py").read_text() == "new = 1\n"
    assert [p.name for p in lab.snapshots.iterdir()] == [kept.name]


def test_a_disk_that_is_full_leaves_nothing_half_made(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _entry: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(snapshot_module, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        take_snapshot(lab)
    assert list(lab.snapshots.iterdir()) == []


def test_a_project_inside_its_repository_and_repositories_inside_the_project(repository: Path) -> None:
    project = Project(repository / "part")
    (project.root / "experiments").mkdir(parents=True)
    (project.root / "experiments/a.yaml").write_text("a")
    (project.root / "jobs").mkdir()
    (project.root / "jobs/1").write_text("x")
    (repository / "library.py").write_text("x")
    inner = project.root / "inner"
    inner.mkdir()
    git(inner, "init", "-q")
    (inner / "code.py").write_text("inner")
    commit_all(inner)
    (inner / "new.py").write_text("new")
    kept = take_snapshot(project)
    assert kept.place == PurePosixPath("part")
    assert tree(kept.folder) == {
        "part/experiments/a.yaml": "a",
        "library.py": "x",
        "part/inner/code.py": "inner",
        "part/inner/new.py": "new",
    }


def test_why_nothing_can_be_kept(lab: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Project(tmp_path / "plain")
    plain.root.mkdir()
    with pytest.raises(SnapshotError, match="plain is in no git repository"):
        take_snapshot(plain)
    inside = Project(lab.root / "data")
    with pytest.raises(SnapshotError, match=r"holds no file of .*data"):
        take_snapshot(inside)
    monkeypatch.setattr(snapshot_module, "MOST_FILES", 2)
    with pytest.raises(SnapshotError, match="holds 3 files, and at most 2 are kept"):
        take_snapshot(lab)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SnapshotError, match="git is not on this machine"):
        take_snapshot(lab)


def test_which_snapshots_no_job_uses(lab: Project) -> None:
    assert unused_snapshots(lab) == []
    used = take_snapshot(lab)
    (lab.root / "src/mine/new.py").write_text("new = 2\n")
    unused = take_snapshot(lab)
    shutil.copytree(unused.folder, half := lab.snapshots / ".x.new.1.tmp", symlinks=True)
    job = lab.job("1971498")
    job.folder.mkdir()
    job.record.write_text(f'{{"snapshot": "{used.name}"}}')
    assert unused_snapshots(lab) == []  # too young: their jobs may not be recorded yet
    for folder in (used.folder, unused.folder, half):
        os.utime(folder, (time.time() - 7200,) * 2)
    assert unused_snapshots(lab) == [half, unused.folder]
    take_snapshot(lab)  # wanted again
    assert unused_snapshots(lab) == [half]
