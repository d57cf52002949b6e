"""Which code a job runs: real jobs, and what their records and notes say of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from app_fixtures import write_specs

import tdmpc_lab
from tdmpc_lab.app.code import code_now
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.paths import Project

SOURCE = Path(tdmpc_lab.__file__).parents[1]
IDENTITY = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
# Says which code it is, and what it reads at the place where it runs.
TELLING = "        (pathlib.Path(os.environ['TOLD'])).write_text(f'VERSION {open(\"words.txt\").read()}')\n"


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", *IDENTITY, *words], cwd=root, check=True, capture_output=True, timeout=30)


def write_version(root: Path, version: str) -> None:
    """The user's module, and a file that it reads, of this version."""
    text = (root / "moody_env.py").read_text()
    head, _, tail = text.partition("        self.fail_at")
    head = head.split("        (pathlib")[0].replace("import os, signal, time", "import os, pathlib, signal, time")
    (root / "moody_env.py").write_text(f"{head}{TELLING.replace('VERSION', version)}        self.fail_at{tail}")
    (root / "words.txt").write_text(version)


@pytest.fixture
def root(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a git repository, with one commit."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(project), str(SOURCE)]))
    monkeypatch.setenv("TOLD", str(project.parent / "told"))
    write_specs(project)
    write_version(project, "old")
    (project / ".gitignore").write_text("jobs/\nmlruns/\n__pycache__/\n")
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "one")
    return project


def lab(root: Path, *words: str, check: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tdmpc_lab", *words],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == check, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def submit(root: Path, *words: str) -> Path:
    """The folder of a job that was submitted."""
    done = lab(root, "submit", *words, "--cluster", "local", "--json")
    return Path(json.loads(done.stdout)["jobs"][0]["folder"])


def record_of(folder: Path) -> dict:
    return json.loads((folder / "job.json").read_text())


def test_a_job_that_waits_runs_the_code_of_its_submit(root: Path) -> None:
    told = root.parent / "told"
    first = submit(root, "experiments/moody.yaml", "env.options={slow: 0.02}", "train.steps=2000")
    waiting = submit(root, "experiments/moody.yaml")
    deadline = time.monotonic() + 60
    while not (first / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert told.read_text() == "old old"
    write_version(root, "new")
    told.unlink()
    lab(root, "cancel", first.name)
    lab(root, "wait", waiting.name)
    assert told.read_text() == "old old"

    later = submit(root, "experiments/moody.yaml", "train.seed=2", "--wait")
    assert told.read_text() == "new new"
    records = [record_of(folder) for folder in (first, waiting, later)]
    assert records[0]["snapshot"] == records[1]["snapshot"] != records[2]["snapshot"]
    assert [r["git_dirty"] for r in records] == [False, False, True]
    assert not (waiting / "code.diff").exists()
    assert "+new" in (later / "code.diff").read_text()
    note = (root / "notes" / f"{later.name}.md").read_text()
    assert f"with changes, snapshot {records[2]['snapshot'][:8]}, tdmpc-lab {tdmpc_lab.__version__}" in note
    # What the job writes is in the project, and nothing of it in the snapshot.
    assert [e["event"] for e in read_jsonl(later / "events.jsonl")[0]].count("finished") == 1
    kept = root / "jobs" / ".snapshots" / records[2]["snapshot"]
    assert not {"jobs", "notes", "mlruns"} & {path.name for path in kept.iterdir()}


def test_without_a_snapshot_the_job_runs_the_working_tree_and_says_so(root: Path) -> None:
    folder = submit(root, "experiments/moody.yaml", "--no-snapshot", "--wait")
    record = record_of(folder)
    assert (record["snapshot"], record["live_code"]) == (None, "--no-snapshot")
    assert (root.parent / "told").read_text() == "old old"
    assert not (root / "jobs" / ".snapshots").exists()
    assert "not kept (--no-snapshot)" in (root / "notes" / f"{folder.name}.md").read_text()


def test_no_repository_is_a_warning(root: Path) -> None:
    (root / ".git").rename(root / "no-git")
    done = lab(root, "submit", "experiments/moody.yaml", "--cluster", "local", "--wait", "--json")
    assert "warning: the code is not kept" in done.stderr
    assert "is in no git repository" in done.stderr
    record = record_of(Path(json.loads(done.stdout)["jobs"][0]["folder"]))
    assert record["snapshot"] is None
    assert "is in no git repository" in record["live_code"]


def test_the_package_is_kept_where_it_is_part_of_the_repository() -> None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        pytest.skip("the tests run outside of a repository")
    code = code_now(Project(root), "local", write=False)
    assert code.workplace is not None
    assert code.package is None
    kept = root / "jobs" / ".snapshots" / str(code.snapshot)
    assert code.workplace.folder == kept
    assert code.workplace.python_path[0] == kept / "src"
    debug = code_now(Project(root), "debug")
    assert debug.snapshot is None
    assert debug.warning is None
