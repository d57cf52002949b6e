"""Two users of one project on a cluster that runs the jobs of both."""

from __future__ import annotations

import json
import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from app_fixtures import write_specs
from slurm_fixtures import RESOURCES, Sim

from several_users import GROUP, User, make_user, python_for_all, workplace
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.sharing import not_shared

BY_SLURM = ("--cluster", "slurm", "--skip-preflight", "--json")


@pytest.fixture
def two_users(start_cluster: Callable[..., Sim], empty_store: Path) -> Iterator[tuple[User, User, Sim]]:
    """SLURM runs jobs of users that the machine knows, so these are two of its own; they share a group."""
    python_for_all()
    names = [name for name in ("daemon", "games", "mail", "news", "uucp") if _is_known(name)]
    if len(names) < 2:
        pytest.skip("this machine knows no two users beside root that could submit")
    sim = start_cluster(accounting=False, all_users=True)
    with workplace() as folder:
        root = folder / "project"
        (root / "experiments").mkdir(parents=True)
        write_specs(root)
        for spec in (root / "experiments").glob("*.yaml"):
            spec.write_text(spec.read_text() + RESOURCES)
        (root / "tdmpc-lab.yaml").write_text("tracking: {slurm_jobs: live}\n")
        (root / "mlruns").mkdir()
        shutil.copyfile(empty_store, root / "mlruns" / empty_store.name)
        users = [pwd.getpwnam(name) for name in names[:2]]
        for path in (root, *root.rglob("*")):
            os.chown(path, users[0].pw_uid, GROUP)
        # SLURM gives a job the groups that the machine knows, and the one that the submitting process has.
        first, second = (
            make_user(folder, user.pw_uid, GROUP, (), umask, SLURM_CONF=str(sim.conf))
            for user, umask in zip(users, (0o022, 0o002), strict=True)
        )
        yield first, second, sim


def _is_known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _submit(user: User, *words: str) -> str:
    (job,) = json.loads(user.run("submit", *words, *BY_SLURM).stdout)["jobs"]
    return str(job["id"])


@pytest.mark.timeout(300)  # a dozen commands, each with a start of Python
def test_jobs_of_two_users_in_one_project(two_users: tuple[User, User, Sim]) -> None:
    """Each sees the other's job for what it is while it waits and runs, also on a cluster without accounts."""
    anna, bea, sim = two_users
    assert [(sim.folder / name).stat().st_mode & 0o077 for name in ("state", "log", "run/munge.key")] == [0, 0, 0]
    project = Project(anna.root)
    anna.run("init", "--shared")
    first = _submit(anna, "experiments/quick.yaml", "slurm.extra.begin=now+1hour")
    second = _submit(bea, "experiments/quick.yaml", "train.seed=2")

    name = pwd.getpwuid(anna.uid).pw_name
    seen = {job["id"]: job for job in json.loads(bea.run("status", "--json", "--foreign").stdout)}
    assert seen.keys() == {first, second}  # a colleague's job is none that the project knows nothing of
    assert (seen[first]["state"], seen[first]["user"]) == ("PENDING", name)
    assert seen[first]["slurm"]["state"] == "PENDING"
    refused = bea.run("cancel", first, code=1)
    assert f"{first}: only {name}, who started it" in refused.stderr
    assert not project.job(first).requests.exists()
    assert "is PENDING" in bea.run("resume", first, code=2).stderr

    anna.call("scontrol", "update", f"JobId={first}", "StartTime=now")
    bea.run("note", first, "waited long")
    bea.run("wait", first, second)
    found = json.loads(anna.run("status", "--json").stdout)
    assert {job["id"]: (job["state"], job["step"]) for job in found} == dict.fromkeys(
        [first, second], ("COMPLETED", 80)
    )
    assert "waited long" in project.note(first).read_text()
    bea.run("verdict", first, "unclear", "because it waited")
    assert list(not_shared(anna.root, GROUP)) == []
