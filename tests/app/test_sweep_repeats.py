"""A point of a sweep that is run again or resumed: it stays that point, and stays one job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from app_fixtures import write_specs

from tdmpc_lab.app.code import JobCode
from tdmpc_lab.app.rerun import plan_rerun
from tdmpc_lab.app.resume import plan_resume
from tdmpc_lab.app.submit import Plan, prepare
from tdmpc_lab.config.loader import load_sweep
from tdmpc_lab.errors import UsageError
from tdmpc_lab.jobs.events import EventLog
from tdmpc_lab.jobs.paths import JobPaths, Project

CODE = JobCode(commit=None, dirty=None, diff=None, snapshot=None)


@pytest.fixture
def lab(project: Path) -> Project:
    write_specs(project)
    return Project(project)


@pytest.fixture
def old(lab: Project) -> JobPaths:
    """The second of two jobs of a sweep, stopped at step 40."""
    points = load_sweep(lab.experiments / "quick.yaml", ["sweep={agent.horizon: [3, 4]}"])
    paths = prepare(lab, Plan(points[1], ()), "local", CODE, None, 1)
    for kind in ("started", "stopped"):
        EventLog(paths.events).append(kind, step=40, attempt=1, host="x", pid=1)
    (paths.checkpoints / "step_000000040.pt").touch()
    return paths


def sweep_of(lab: Project, ready: Plan) -> object:
    return json.loads(prepare(lab, ready, "local", CODE, None, 1).record.read_text())["sweep"]


def test_it_stays_the_point_unless_its_own_keys_change(lab: Project, old: JobPaths) -> None:
    point = {"index": 1, "count": 2, "point": {"agent.horizon": 4}}
    assert json.loads(old.record.read_text())["sweep"] == point
    assert sweep_of(lab, plan_rerun(lab, old.id, ["train.seed=3"])[0]) == point
    assert sweep_of(lab, plan_rerun(lab, old.id, ["agent.horizon=5"])[0]) is None
    assert sweep_of(lab, plan_resume(lab, old.id, [], 200)) == point
    assert sweep_of(lab, plan_resume(lab, old.id, ["agent.horizon=5"], 200)) is None


def test_one_job_can_t_become_several(lab: Project, old: JobPaths) -> None:
    with pytest.raises(UsageError, match=r"one job is run again as one job; leave 2 points for a submit of its spec"):
        plan_rerun(lab, old.id, ["sweep.train.seed=[1, 2]"])
    with pytest.raises(UsageError, match="one job is resumed as one job"):
        plan_resume(lab, old.id, ["sweep.train.seed=[1, 2]"], 200)
