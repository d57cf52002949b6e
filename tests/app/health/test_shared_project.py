"""One project, two user ids in one group with different umasks, and somebody outside of it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from app_fixtures import write_specs

from several_users import GROUP, SOURCE, User, make_user, python_for_all, workplace
from tdmpc_lab.app.queue.status import job_views
from tdmpc_lab.cli.main import main
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.find import job_ids
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.state import State
from tdmpc_lab.sharing import not_shared
from tdmpc_lab.tracking.held import HeldStore

LOCAL = ("--cluster", "local", "--skip-preflight")
Team = tuple[User, User, User]


@pytest.fixture
def team(monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    """Anna, whose folder it is; Bea, in the same group; Carl, who is in no group of theirs."""
    python_for_all()
    with workplace() as folder:
        root = folder / "project"
        (root / "experiments").mkdir(parents=True)
        write_specs(root)
        for path in (root, *root.rglob("*")):
            os.chown(path, 20001, 20001)
        yield (
            make_user(folder, 20001, 20001, (GROUP,), 0o022),
            make_user(folder, 20002, 20002, (GROUP,), 0o002),
            make_user(folder, 20003, 20003, (), 0o022),
        )


LOOK = """
import json, pathlib
from tdmpc_lab.app.health import installation as doctor
from tdmpc_lab.app.queue.status import job_views
from tdmpc_lab.cli.main import main
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.state import State
project = Project(pathlib.Path.cwd())
print(json.dumps([p.as_dict() for part in (doctor.look_at_sharing, doctor.look_at_git) for p in part(project)]))
"""


def seen(user: User) -> dict[str, tuple[str, str, str]]:
    """What `doctor` says of sharing and git; by itself, for the rest of it takes seconds."""
    points = json.loads(user.call(python_for_all(), "-c", LOOK).stdout)
    return {p["check"]: (p["level"], p["what"], p["fix"]) for p in points}


def test_two_users_work_in_one_project(team: Team, store_template: Callable[[], Path]) -> None:
    """Jobs, notes, verdicts, locks and the MLflow store of each are the other's to use, and nobody else's."""
    anna, bea, carl = team
    root = anna.root
    made = anna.run("init", "--shared", "--group", str(GROUP))
    assert f"shared with group {GROUP}" in made.stdout
    (root / "mlruns").mkdir(mode=0o2770)  # as if it had been made before; MLflow takes seconds for one
    shutil.copyfile(store_template(), root / "mlruns" / "mlflow.db")
    for path in (root / "mlruns", root / "mlruns" / "mlflow.db"):
        os.chown(path, 20001, 20001)
    anna.run("init", "--shared")

    anna.run("submit", "experiments/quick.yaml", *LOCAL, "--wait")
    (first,) = job_ids(Project(root))
    bea.run("note", first, "the pendulum hangs")
    bea.run("verdict", first, "bad", "because it is short")
    bea.run("resume", first, "--steps", "100", *LOCAL, "--wait")
    found = json.loads(anna.run("status", "--json").stdout)
    assert [(job["user"], job["state"], job["step"]) for job in found] == [
        ("20001", "COMPLETED", 80),
        ("20002", "COMPLETED", 100),
    ]
    anna.run("verdict", found[1]["id"], "good", "because it continues")
    note = (root / "notes" / f"{first}.md").read_text()
    assert "the pendulum hangs" in note
    assert "--> bad: because it is short" in note
    runs = HeldStore.open(f"sqlite:///{root}/mlruns/mlflow.db", root).runs
    assert {job_id: run.status for job_id, run in runs.items()} == {job["id"]: "FINISHED" for job in found}

    assert list(not_shared(root, GROUP)) == []
    assert seen(bea)["sharing"] == ("ok", f"shared with group {GROUP}, closed to others", "")
    assert [path for path in (root, *root.rglob("*")) if _open_to_others(path, root)] == []
    refused = carl.run("status", code=2, cwd=Path("/"))
    assert "no project" in refused.stderr
    refused = User(**{**vars(carl), "environ": {**carl.environ, "TDMPC_LAB_ROOT": str(root)}}).run(
        "status", code=3, cwd=Path("/")
    )
    assert "belongs to 20001, group 20100" in refused.stderr
    assert "no jobs" not in refused.stdout + refused.stderr


def _open_to_others(path: Path, root: Path) -> bool:
    """Whether others could use what was made after the project was shared, did they get through its folder."""
    status = path.lstat()
    made_before = path.is_relative_to(root / "experiments") or path.name in ("experiments", "jobs", "notes", "mlruns")
    return not (stat.S_ISLNK(status.st_mode) or made_before or path.suffix in (".py", ".db")) and bool(
        status.st_mode & stat.S_IRWXO
    )


def test_what_is_not_set_up_is_named(team: Team) -> None:
    """Before `init --shared`, and where somebody's other tools have made files for himself alone."""
    anna, bea, _ = team
    root = anna.root
    root.chmod(0o755)
    assert seen(bea)["sharing"] == (
        "warning",
        "20001, 20002 use it, and it is not set up for several users",
        "tdmpc-lab init --shared, as 20001",
    )
    refused = bea.run("init", "--shared", "--group", str(GROUP), code=2)
    assert "let 20001 run `tdmpc-lab init --shared` first" in refused.stderr

    anna.run("init", "--shared", "--group", str(GROUP))
    bea.call("sh", "-c", "umask 077; mkdir notes/mine; touch notes/mine/a notes/mine/b")
    level, found, fix = seen(anna)["sharing"]
    assert (level, fix) == ("error", "tdmpc-lab init --shared, as 20002")
    assert "notes/mine" in found
    left = anna.run("init", "--shared", code=1)
    assert "their owners mend that" in left.stderr
    bea.run("init", "--shared")
    assert seen(anna)["sharing"][0] == "ok"


def test_a_repository_of_somebody_else(team: Team) -> None:
    """Git does not trust it, and what can be done is git's to say: it is there, so `git init` is no advice."""
    anna, bea, _ = team
    anna.call("git", "init", "-q")
    made = anna.run("init", "--shared", "--group", str(GROUP))
    trust = f"git config --global --add safe.directory {anna.root}"
    assert trust in made.stdout
    assert anna.call("git", "config", "core.sharedRepository").stdout == "group\n"
    _, found, fix = seen(bea)["git"]
    assert trust in found
    assert "git init" not in found + fix
    bea.call(*trust.split())
    bea.call("git", "add", "experiments")
    who = ("-c", "user.name=bea", "-c", "user.email=bea@lab")
    bea.call("git", *who, "commit", "-qm", "specs")
    anna.call("git", *who, "commit", "-q", "--allow-empty", "-m", "both can")
    assert [point[0] for point in seen(bea).values()] == ["ok", "ok"]


def test_a_job_that_is_not_shared_is_not_taken_for_none(team: Team) -> None:
    anna, bea, _ = team
    anna.root.chmod(0o755)
    job_id = "local-20260203-091422-123"
    folder = Project(anna.root).job(job_id).folder
    anna.call("sh", "-c", f"umask 027; mkdir -p {folder}; echo {{}} > {folder}/job.json; chmod a+rx jobs")
    shown = bea.run("status").stdout
    assert job_id in shown
    assert "belongs to 20001" in shown
    assert "no jobs yet" not in shown
    refused = bea.run("show", job_id, code=1).stderr
    assert "belongs to 20001" in refused
    refused = bea.run("compare", "quick", code=2).stderr
    assert "none of 1 jobs can be read" in refused
    assert "is stopped by its own user" in bea.run("cancel", job_id, code=1).stderr


def test_a_job_that_can_not_be_started_is_failed_and_not_unknown(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is recorded when its start fails: nobody is to wait for it, and it is not among those that were submitted."""
    write_specs(project)
    (project / "jobs").mkdir()
    (project / "jobs" / ".local").write_text("in the way of the queue's folder")
    assert main(["submit", "experiments/quick.yaml", *LOCAL]) == 3
    said = capsys.readouterr().err
    (view,) = job_views(Project(project))
    assert view.status is not None
    assert view.status.state is State.FAILED
    assert "it could not be started" in (view.status.cause or "")
    assert f"error: job {view.id}: it could not be started" in said
    assert "submitted before the error" not in said


def test_a_supervisor_that_can_not_wait_for_its_turn_says_so(project: Path) -> None:
    lab = Project(project)
    paths = lab.job("local-20260203-091422-123")
    paths.folder.mkdir(parents=True)
    (lab.jobs / ".local").write_text("in the way of the queue's folder")
    command = [sys.executable, "-m", "tdmpc_lab.app.supervisor", str(project), paths.id, "1"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, check=False)
    assert done.returncode == 1
    (event,) = read_events(paths.events)
    assert event["event"] == "failed"
    assert "it could not be started" in event["cause"]
