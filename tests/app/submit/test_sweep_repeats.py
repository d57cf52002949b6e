"""A job that is run again or resumed: it stays the point, and of the variant, that it was, and one job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from app_fixtures import write_specs

from tdmpc_lab.app.submit.code import JobCode
from tdmpc_lab.app.submit.restart import plan_rerun, plan_resume
from tdmpc_lab.app.submit.submit import JobPlan, plan, prepare
from tdmpc_lab.config.loader import load_sweep
from tdmpc_lab.errors import SpecError, UsageError
from tdmpc_lab.jobs.events import EventLog
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import read_record
from tdmpc_lab.jobs.variants import variant_name

CODE = JobCode(commit=None, dirty=None, diff=None, snapshot=None)


@pytest.fixture
def lab(project: Path) -> Project:
    write_specs(project)
    return Project(project)


@pytest.fixture
def old(lab: Project) -> JobPaths:
    """The second of two jobs of a sweep, stopped at step 40."""
    points = load_sweep(lab.experiments / "quick.yaml", ["sweep={agent.horizon: [3, 4]}"])
    return stopped(lab, JobPlan(points[1], ()))


def sweep_of(lab: Project, ready: JobPlan) -> object:
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


def stopped(lab: Project, ready: JobPlan) -> JobPaths:
    """A job that was stopped at step 40."""
    paths = prepare(lab, ready, "local", CODE, None, 1)
    for kind in ("started", "stopped"):
        EventLog(paths.events).append(kind, step=40, attempt=1, host="x", pid=1)
    (paths.checkpoints / "step_000000040.pt").touch()
    return paths


def submitted(lab: Project, *overrides: str, spec: str = "quick") -> JobPaths:
    (ready,) = plan(lab, [f"experiments/{spec}.yaml"], overrides, environments=False)
    return stopped(lab, ready)


def resumed(lab: Project, old: JobPaths, *overrides: str, steps: int | None = None) -> JobPaths:
    return stopped(lab, plan_resume(lab, old.id, overrides, steps))


def rerun(lab: Project, old: JobPaths, *overrides: str) -> JobPaths:
    return stopped(lab, plan_rerun(lab, old.id, overrides)[0])


def variant(paths: JobPaths) -> tuple[str, str]:
    """What MLflow averages over, and what has one colour."""
    record = read_record(paths)
    return variant_name(record), record.group


def difference(lab: Project, paths: JobPaths) -> list[str]:
    note = lab.note(paths.id).read_text(encoding="utf-8")
    return [line for line in note.splitlines() if line.startswith("- vs ")]


@pytest.fixture
def baseline(lab: Project) -> Project:
    """A project whose `quick` differs from its `baseline` in the horizon, and in how long it trains."""
    quick = (lab.experiments / "quick.yaml").read_text()
    (lab.experiments / "baseline.yaml").write_text(quick)
    changed = quick.replace("horizon: 3", "horizon: 4").replace("steps: 80", "steps: 90")
    (lab.experiments / "quick.yaml").write_text(f"compare_to: baseline\n{changed}")
    return lab


def test_a_resumed_job_is_compared_to_what_its_spec_names(baseline: Project) -> None:
    submitted(baseline, spec="baseline")
    old = submitted(baseline)
    told = ["- vs baseline: agent.horizon 3 → 4, train.steps 80 → 90"]
    assert difference(baseline, old) == told
    again = resumed(baseline, old)
    assert difference(baseline, again) == told
    longer = resumed(baseline, again, steps=200)
    assert difference(baseline, longer) == ["- vs baseline: agent.horizon 3 → 4, train.steps 80 → 200"]
    other = resumed(baseline, longer, "agent.horizon=3")
    assert difference(baseline, other) == ["- vs baseline: train.steps 80 → 200"]
    assert variant(old) == variant(again) == variant(longer)
    assert variant(old)[0] == "horizon 4, steps 90"
    assert variant(other)[1] != variant(old)[1]


def test_a_job_is_not_compared_to_the_one_that_it_goes_on_from(lab: Project) -> None:
    """`compare_to` names its own experiment, and the newest job of that is the one resumed."""
    first = submitted(lab)
    second = submitted(lab, "agent.horizon=5", "compare_to=quick")
    third = resumed(lab, resumed(lab, second))
    assert read_record(third).diff == read_record(second).diff == ("agent.horizon 3 → 5",)
    assert first.id != second.id


def test_a_job_goes_on_though_nothing_is_left_to_compare_it_to(
    baseline: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    old = submitted(baseline)
    (baseline.experiments / "baseline.yaml").unlink()
    again = resumed(baseline, old)
    assert "the differences to baseline are not told" in capsys.readouterr().err
    assert difference(baseline, again) == []
    assert variant(again) == variant(old)
    with pytest.raises(SpecError, match="nobody"):
        plan_resume(baseline, old.id, ["compare_to=nobody"], None)


def test_overrides_stay_in_the_name_of_the_variant(lab: Project) -> None:
    old = submitted(lab, "agent.lr=0.001")
    assert variant(old)[0] == "lr 0.001"
    assert variant(resumed(lab, old)) == variant(old)
    assert variant(resumed(lab, old, steps=200)) == variant(old)
    assert variant(rerun(lab, old)) == variant(old)
    assert variant(rerun(lab, old, "train.seed=2")) == variant(old)
    assert variant(rerun(lab, old, "agent.horizon=5"))[0] == "lr 0.001, horizon 5"
    assert variant(rerun(lab, old, "agent.lr=0.01"))[0] == "lr 0.01"
    assert variant(rerun(lab, old, "train.steps=200"))[1] != variant(old)[1]


def test_a_point_of_a_sweep_keeps_its_name(lab: Project, old: JobPaths) -> None:
    assert variant(old)[0] == "h4"
    assert variant(resumed(lab, old, steps=200)) == variant(old)
    assert variant(resumed(lab, old, "agent.horizon=5", steps=200))[0] == "horizon 5"
    assert variant(rerun(lab, old, "agent.lr=0.01"))[0] == "h4, lr 0.01"
