from __future__ import annotations

import contextlib
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from servers import free_port
from tdmpc_lab.errors import ExternalError, SpecError, UsageError
from tdmpc_lab.tracking.store import (
    artifact_location,
    open_client,
    public_uri,
    refused_by_mlflow,
    run_url,
    sends_itself,
    store_problem,
    store_uri,
    ui_command,
    uri_problem,
)

PROCESSES = 3
CREATE = """
import sys
from pathlib import Path
from tdmpc_lab.tracking.store import open_client, store_uri
root = Path(sys.argv[1])
from mlflow import MlflowClient  # the slow part first, so that all arrive at the same time
print("ready", flush=True)
sys.stdin.readline()
client = open_client(store_uri(root), root)
client.create_experiment(sys.argv[2])
"""


def test_the_default_store_is_in_the_project(tmp_path: Path) -> None:
    assert store_uri(tmp_path) == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert store_uri(tmp_path).startswith("sqlite:////")


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////abs/x.db", "sqlite:////abs/x.db"),
        ("sqlite:///rel.db", "sqlite:///{root}/rel.db"),
        ("  ", "sqlite:///{root}/mlruns/mlflow.db"),
    ],
)
def test_the_users_store(uri: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert store_uri(tmp_path) == wanted.format(root=tmp_path)


def test_the_variable_comes_before_the_projects_file_and_that_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tdmpc-lab.yaml").write_text("tracking: {uri: 'http://of.the.project:5000'}\n")
    assert store_uri(tmp_path) == "http://of.the.project:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
    assert store_uri(tmp_path) == f"sqlite:///{tmp_path}/mine.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (tmp_path / "tdmpc-lab.yaml").write_text("tracking: {uri: 'sqlite:///ours.db'}\n")
    assert store_uri(tmp_path) == f"sqlite:///{tmp_path}/ours.db"
    (tmp_path / "tdmpc-lab.yaml").write_text("tracking: {url: x}\n")
    with pytest.raises(SpecError, match="did you mean 'uri'"):
        store_uri(tmp_path)
    assert "did you mean 'uri'" in store_problem(tmp_path)


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("127.0.0.1:5000", "did you mean http://127.0.0.1:5000?"),
        ("mlflow.lab:5000/team", "did you mean http://mlflow.lab:5000/team?"),
        ("htp://x", "of no kind that MLflow knows (did you mean http://"),
        ("postgres://lab/mlflow", "did you mean postgresql://"),
        ("ftp://x/y", "of no kind that MLflow knows: write a server"),
        ("http://", "names no host"),
        ("http://host:5OOO", "is no address"),
        ("./mlruns", "is a plain folder, in which MLflow keeps no runs any more"),
        ("file:///lab/mlruns", "is a plain folder"),
        ("sqlite:mlflow.db", "names no file: write a server as in http://host:5000, or a file as in sqlite:///"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "a database in memory keeps nothing"),
        ("sqlite:////proc/x.db", "can't be written: /proc"),
        ("uc:foo", "is a Unity Catalog"),
        ("databricks-uc://x", "is a Unity Catalog"),
        ("mysql+no_such_driver://me:secret@lab/x", "the Python package for it is not here: no_such_driver"),
    ],
)
def test_what_mlflow_takes_for_no_store_is_told_before_it_is_asked(
    uri: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what `doctor` and `check` ask, and where it is opened: as one and the same sentence."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    problem = store_problem(tmp_path)
    assert told in problem
    assert "secret" not in problem
    with pytest.raises(ExternalError, match=re.escape(problem)):
        open_client(store_uri(tmp_path), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_text("step,return\n"), "is no SQLite database"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"x" * 4096), "can't be read"),
        (
            lambda path: _database(path, "CREATE TABLE alembic_version (version_num)", "ffffffffffff"),
            "(its tables are ff",
        ),
        (
            lambda path: _database(path, "CREATE TABLE alembic_version (version_num)", "451aebb31d03"),
            "",
        ),  # an older one
        (lambda path: _database(path, "CREATE TABLE alembic_version (version_num)", None), ""),
        (lambda path: path.touch(), ""),
    ],
)
def test_a_file_in_which_mlflow_keeps_no_runs(
    made: Callable[[Path], object], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "store.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///store.db")
    problem = store_problem(tmp_path)
    assert (told in problem) if told else problem == ""


def _database(path: Path, table: str, version: str | None) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(table)
        if version is not None:
            database.execute("INSERT INTO alembic_version VALUES (?)", [version])
        database.commit()


def test_credentials_that_are_missing_are_told_by_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", "/nonexistent")
    assert "MLflow refuses databricks: " in refused_by_mlflow("databricks")
    assert refused_by_mlflow("http://127.0.0.1:9") == ""


@pytest.mark.parametrize("uri", ["HTTP://127.0.0.1:1", "https://x", "databricks", "sqlite:////lab/x.db"])
def test_what_mlflow_takes_for_a_store(uri: str) -> None:
    assert uri_problem(uri) == ""


def test_a_database_server_that_is_not_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"mysql+json://me:secret@127.0.0.1:{free_port()}/x")  # a package, always
    assert "does not answer" in store_problem(tmp_path)
    assert "secret" not in store_problem(tmp_path)


@pytest.mark.parametrize(
    ("uri", "chosen", "slurm_sends"),
    [
        ("", "", False),
        ("sqlite:////home/me/mlflow.db", "", False),
        ("http://mlflow.lab:5000", "", True),
        ("postgresql://mlflow.lab/mlflow", "", True),
        ("http://mlflow.lab:5000", "later", False),
        ("", "live", True),
    ],
)
def test_slurm_jobs_write_no_file_over_the_network_unless_told_to(
    uri: str, chosen: str, slurm_sends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    if chosen:
        (tmp_path / "tdmpc-lab.yaml").write_text(f"tracking: {{slurm_jobs: {chosen}}}\n")
    assert sends_itself(tmp_path, "slurm") == slurm_sends
    assert sends_itself(tmp_path, "local")
    assert sends_itself(tmp_path, "debug")


def test_a_folder_that_no_uri_can_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_URI"):
        store_uri(tmp_path / "what?")


@pytest.fixture(autouse=True)
def quick_stores() -> None:
    """Here they are made by MLflow itself."""


def test_a_folder_with_odd_characters_works(tmp_path: Path) -> None:
    root = tmp_path / "my lab # 100 % ü"
    root.mkdir()
    client = open_client(store_uri(root), root)
    experiment = client.create_experiment("x", artifact_location(store_uri(root), "x"))
    run = client.create_run(experiment)
    (root / "a.txt").write_text("a")
    client.log_artifact(run.info.run_id, str(root / "a.txt"))
    assert (root / "mlruns" / "mlflow.db").is_file()
    assert [p.name for p in (root / "mlruns" / "artifacts").rglob("*.txt")] == ["a.txt"]


def test_artifact_folders_of_odd_names_stay_inside() -> None:
    uri = "sqlite:////lab/mlruns/mlflow.db"
    assert artifact_location(uri, "h9.v2") == "file:///lab/mlruns/artifacts/h9.v2"
    for name in ("..", "a/../..", "."):
        location = artifact_location(uri, name)
        assert location is not None
        assert location.startswith("file:///lab/mlruns/artifacts/")
        assert "/.." not in location
    assert artifact_location("http://127.0.0.1:5000", "x") is None


def test_passwords_are_not_shown() -> None:
    assert public_uri("http://me:secret@host:5000/x") == "http://***@host:5000/x"
    assert public_uri("sqlite:////lab/mlflow.db") == "sqlite:////lab/mlflow.db"


def test_commands_and_addresses(tmp_path: Path) -> None:
    command = ui_command(store_uri(tmp_path), tmp_path, 5001)
    assert command[:4] == [sys.executable, "-m", "mlflow", "ui"]
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "5001"
    assert command[command.index("--allowed-hosts") + 1] == "127.0.0.1:*,localhost:*"
    assert run_url("http://127.0.0.1:5001/", "3", "r") == (
        "http://127.0.0.1:5001/#/experiments/3/runs/r?workflowType=machine_learning"
    )


def test_processes_that_create_the_store_at_once(tmp_path: Path) -> None:
    """In a project that a group shares, the group can write what they make."""
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns").chmod(0o2770)
    with contextlib.ExitStack() as stack:
        children = []
        for k in range(PROCESSES):
            command = [sys.executable, "-c", CREATE, str(tmp_path), f"experiment-{k}"]
            pipe = subprocess.PIPE
            child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
            stack.enter_context(child)
            stack.callback(child.kill)
            children.append(child)
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        for child in children:
            _, errors = child.communicate(timeout=120)
            assert child.returncode == 0, errors
    assert stat.filemode((tmp_path / "mlruns" / "mlflow.db").stat().st_mode) == "-rw-rw----"
    names = {e.name for e in open_client(store_uri(tmp_path), tmp_path).search_experiments()}
    assert names == {"Default", *(f"experiment-{k}" for k in range(PROCESSES))}
