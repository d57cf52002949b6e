"""Which code a job runs: real jobs, and what their records and notes say of it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from app_fixtures import write_specs

import tdmpc_lab
from tdmpc_lab.app.submit.code import code_now
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.tracking.store import ensure_store, store_uri

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


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store, which takes seconds to make."""
    root = tmp_path_factory.mktemp("store")
    ensure_store(store_uri(root), root)
    return root / "mlruns" / "mlflow.db"


@pytest.fixture
def root(project: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a git repository, with one commit."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(project), str(SOURCE)]))
    monkeypatch.setenv("TOLD", str(project.parent / "told"))
    (project / "mlruns").mkdir()
    shutil.copyfile(store, project / "mlruns" / "mlflow.db")
    write_specs(project)
    write_version(project, "old")
    (project / ".gitignore").write_text("jobs/\nmlruns/\n__pycache__/\n")
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "one")
    return project


class Place:
    """The only place for local jobs: while it is taken, what is submitted waits."""

    def __init__(self, root: Path) -> None:
        self.slot = root / "jobs" / ".local" / "slot-0"
        self.slot.parent.mkdir(parents=True)
        self.take()

    def take(self) -> None:
        self.fd = os.open(self.slot, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def free(self) -> None:
        os.close(self.fd)
        self.fd = -1


@pytest.fixture
def place(root: Path) -> Iterator[Place]:
    """Taken by the test itself."""
    place = Place(root)
    yield place
    if place.fd >= 0:
        place.free()


def lab(
    root: Path, *words: str, check: int = 0, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tdmpc_lab", *words],
        cwd=root,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == check, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def submit(root: Path, *words: str, command: str = "submit", environ: Mapping[str, str] | None = None) -> Path:
    """The folder of the job that this makes."""
    done = lab(root, command, *words, "--cluster", "local", "--json", environ=environ)
    return Path(json.loads(done.stdout)["jobs"][0]["folder"])


def record_of(folder: Path) -> dict:
    return json.loads((folder / "job.json").read_text())


def test_a_job_that_waits_runs_the_code_of_its_submit(root: Path, place: Place) -> None:
    told = root.parent / "told"
    waiting = submit(root, "experiments/moody.yaml")
    write_version(root, "new")
    later = submit(root, "experiments/moody.yaml", "train.seed=2")
    told.unlink()  # each submit made the environment
    lab(root, "cancel", later.name)
    place.free()
    lab(root, "wait", waiting.name)
    assert told.read_text() == "old old"

    before, after = record_of(waiting), record_of(later)
    assert before["snapshot"] != after["snapshot"]
    assert (before["git_dirty"], after["git_dirty"]) == (False, True)
    assert not (waiting / "code.diff").exists()
    assert "+new" in (later / "code.diff").read_text()
    note = (root / "notes" / f"{later.name}.md").read_text()
    assert f"with changes, snapshot {after['snapshot'][:8]}, tdmpc-lab {tdmpc_lab.__version__}" in note
    # What the job writes is in the project, and nothing of it in the snapshot.
    assert [e["event"] for e in read_jsonl(waiting / "events.jsonl")[0]].count("finished") == 1
    kept = root / "jobs" / ".snapshots" / before["snapshot"]
    assert not {"jobs", "notes", "mlruns"} & {path.name for path in kept.iterdir()}


def test_without_a_snapshot_the_job_runs_the_working_tree_and_says_so(root: Path, place: Place) -> None:
    folder = submit(root, "experiments/moody.yaml", "--no-snapshot")
    record = record_of(folder)
    assert (record["snapshot"], record["live_code"]) == (None, "--no-snapshot")
    assert not (root / "jobs" / ".snapshots").exists()
    note = (root / "notes" / f"{folder.name}.md").read_text()
    assert "not kept (--no-snapshot)" in note
    assert "again: `tdmpc-lab submit experiments/moody.yaml --cluster local --no-snapshot --again`" in note
    lab(root, "cancel", folder.name)


def test_what_looks_like_a_secret_stays_out_of_the_difference(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_TOKEN", "open sesame!")
    with (root / "moody_env.py").open("a") as module:
        module.write("PASSWORD = 'hunter2hunter2'\nDOOR = 'open sesame!'\nSIZE = 3\n")
    code = code_now(Project(root), "local", write=False)
    assert code.diff is not None
    assert "hunter2" not in code.diff
    assert "sesame" not in code.diff
    assert "+SIZE = 3" in code.diff
    assert code.warning == "left out of code.diff: 2 values that look like secrets"
    assert code.all_left_out == ("2 values in code.diff (look like secrets)",)


def test_no_repository_is_a_warning(root: Path, place: Place) -> None:
    (root / ".git").rename(root / "no-git")
    done = lab(root, "submit", "experiments/moody.yaml", "--cluster", "local", "--json")
    assert "warning: the code is not kept" in done.stderr
    assert "is in no git repository" in done.stderr
    record = record_of(Path(json.loads(done.stdout)["jobs"][0]["folder"]))
    assert record["snapshot"] is None
    assert "is in no git repository" in record["live_code"]
    lab(root, "cancel", record["id"])


def test_the_package_is_kept_where_it_is_part_of_the_repository() -> None:
    root = Path(__file__).parents[3]
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
    assert "kept" not in (debug.warning or "")


def test_a_rerun_has_the_code_and_the_config_of_the_old_job(root: Path, place: Place) -> None:
    told = root.parent / "told"
    old = submit(root, "experiments/moody.yaml", "train.seed=5")
    lab(root, "cancel", old.name)
    (root / "moody_env.py").write_text("raise RuntimeError('broken since')")
    told.unlink()
    place.free()
    done = lab(root, "rerun", old.name, "agent.horizon=2", "--cluster", "local", "--wait", "--json")
    assert told.read_text() == "old old"
    new = Path(json.loads(done.stdout)["jobs"][0]["folder"])
    before, record = record_of(old), record_of(new)
    assert (record["rerun_of"], record["parent"]) == (old.name, None)
    assert (record["snapshot"], record["git_commit"]) == (before["snapshot"], before["git_commit"])
    assert (record["compare_to"], record["diff"]) == (old.name, ["agent.horizon 3 → 2"])
    assert (record["experiment"], record["seed"]) == ("moody", 5)
    rows, _ = read_jsonl(new / "metrics.jsonl")
    assert [row["step"] for row in rows if "updates" in row] == [20, 40, 60, 80]  # from its beginning
    note = (root / "notes" / f"{new.name}.md").read_text()
    assert f"rerun of {old.name}" in note
    again = f"tdmpc-lab rerun {old.name} agent.horizon=2 --cluster local"
    assert f"again: `{again}`" in note

    place.take()
    third = json.loads(lab(root, *again.split()[1:], "--json").stdout)["jobs"][0]
    assert record_of(Path(third["folder"]))["config_hash"] == record["config_hash"]
    lab(root, "cancel", third["id"])


def test_a_rerun_says_when_there_is_no_code_to_run(root: Path, place: Place) -> None:
    live = submit(root, "experiments/moody.yaml", "--no-snapshot")
    done = lab(root, "rerun", live.name, "--cluster", "local", "--json")
    assert f"no code was kept for {live.name}: this runs the code as it is now" in done.stderr
    new = Path(json.loads(done.stdout)["jobs"][0]["folder"])
    assert record_of(new)["snapshot"] is not None
    assert (new / "resolved.yaml").read_text() == (live / "resolved.yaml").read_text()
    lab(root, "cancel", live.name, new.name)

    shutil.rmtree(root / "jobs" / ".snapshots")
    gone = lab(root, "rerun", new.name, "--cluster", "local", check=1)
    assert "is gone" in gone.stderr
    assert f"tdmpc-lab submit jobs/{new.name}/resolved.yaml" in gone.stderr
    assert lab(root, "rerun", "local-nothing", check=2).stderr.startswith("error: ")
    refused = lab(root, "rerun", live.name, "agent.horzon=2", check=2)
    assert "did you mean 'horizon'" in refused.stderr


def test_the_package_of_the_snapshot_reads_the_config_of_a_rerun(root: Path, place: Place) -> None:
    """The old job's package may know other keys: its own words are kept, and it is asked for changed ones."""
    shutil.copytree(SOURCE / "tdmpc_lab", root / "src" / "tdmpc_lab", ignore=shutil.ignore_patterns("__pycache__"))
    own = {**os.environ, "PYTHONPATH": str(root / "src")}
    old = submit(root, "experiments/quick.yaml", environ=own)
    assert record_of(old)["package"] is None
    schema = root / "src/tdmpc_lab/config/schema.py"
    text = schema.read_text()
    assert text.count("    seed: ") == 1
    schema.write_text(text.replace("    seed: ", '    brand_new: int = 7\n    """New."""\n    seed: '))
    now = submit(root, "experiments/quick.yaml", "--again", environ=own)
    same = submit(root, old.name, command="rerun", environ=own)
    lab(root, "cancel", old.name, now.name, same.name)
    place.free()
    changed = submit(root, old.name, "agent.horizon=2", "--wait", command="rerun", environ=own)
    assert "brand_new: 7" in (now / "resolved.yaml").read_text()
    assert (same / "resolved.yaml").read_text() == (old / "resolved.yaml").read_text()
    assert "brand_new" not in (changed / "resolved.yaml").read_text()
    assert "horizon: 2" in (changed / "resolved.yaml").read_text()
    assert record_of(changed)["snapshot"] == record_of(old)["snapshot"] != record_of(now)["snapshot"]
