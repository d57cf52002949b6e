"""The advice on a config: when each rule speaks, what it says, how it is silenced."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest
from app_fixtures import write_specs

from tdmpc_lab.app.checks import estimate
from tdmpc_lab.app.checks.estimate import RunTimeEstimate
from tdmpc_lab.app.checks.lint import LOOKING_RULES, RULES, check_rules, lint, out_of_range, with_advice
from tdmpc_lab.app.checks.preflight import SILENCEABLE
from tdmpc_lab.app.submit import submit
from tdmpc_lab.app.submit.submit import Cluster, JobPlan
from tdmpc_lab.cli.main import main
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.schema import LintRule
from tdmpc_lab.envs.make import Look
from tdmpc_lab.errors import SpecError, UsageError
from tdmpc_lab.jobs.paths import Project

QUICK = "experiments/quick.yaml"


@pytest.fixture
def lab(project: Path) -> Project:
    write_specs(project)
    return Project(project)


def plan(lab: Project, *overrides: str, changes: int = 0) -> JobPlan:
    return JobPlan(load_spec(lab.root / QUICK, overrides), tuple(f"key{n} 1 → 2" for n in range(changes)))


def said(lab: Project, plans: list[JobPlan], cluster: Cluster = "local", *off: str) -> list[str]:
    return [finding.check for finding, _ in lint(lab, plans, cluster, off)]


def test_a_horizon_that_the_temporal_weight_does_not_reach(lab: Project) -> None:
    ((finding, numbers),) = lint(lab, [plan(lab, "agent.horizon=9"), plan(lab, "agent.horizon=18")], "local")
    assert numbers == [1]
    assert "0.5^17 = 7.6e-06" in str(finding)
    assert said(lab, [plan(lab, "agent.horizon=14")]) == []
    assert said(lab, [plan(lab, "agent.horizon=15")]) == ["temporal-weight"]
    assert said(lab, [plan(lab, "agent.horizon=18", "agent.rho=0.9")]) == []


def test_a_time_limit_shorter_than_earlier_jobs_took(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    took = RunTimeEstimate(timedelta(hours=2).total_seconds(), "as 2000001 took")
    monkeypatch.setattr(estimate, "estimate_run_time", lambda *_: took)
    ((finding, _),) = lint(lab, [plan(lab, "slurm.time=01:00:00")], "slurm")
    assert "slurm.time is 1:00:00, and the job takes about 2:00:00: as 2000001 took" in str(finding)
    assert said(lab, [plan(lab, "slurm.time=03:00:00")], "slurm") == []
    old = lab.job("1971498")
    old.checkpoints.mkdir(parents=True)
    (old.checkpoints / "step_000000060.pt").touch()
    goes_on = replace(plan(lab, "slurm.time=01:00:00"), goes_on_from=old)
    asked: list[int] = []
    monkeypatch.setattr(estimate, "estimate_run_time", lambda *words: asked.append(words[3]) or took)
    ((finding, _),) = lint(lab, [goes_on], "slurm")
    assert asked == [60] and "the 20 steps left take about 2:00:00" in str(finding)
    assert said(lab, [plan(lab, "slurm.time=01:00:00")], "local") == []
    monkeypatch.setattr(estimate, "estimate_run_time", lambda *_: None)
    assert said(lab, [plan(lab, "slurm.time=01:00:00")], "slurm") == []


def test_more_than_three_changes(lab: Project) -> None:
    assert said(lab, [plan(lab, changes=3)]) == []
    ((finding, _),) = lint(lab, [plan(lab, "compare_to=other", changes=4)], "local")
    assert str(finding).startswith("4 settings differ from other: you will not know which one did it (")


def test_a_horizon_longer_than_any_episode(lab: Project) -> None:
    """Episodes of `quick` have 20 steps: one more than the horizon is just enough."""
    assert said(lab, [plan(lab, "agent.horizon=19", "agent.rho=0.9")]) == []
    ((finding, _),) = lint(lab, [plan(lab, "agent.horizon=20", "agent.rho=0.9")], "local")
    assert str(finding).startswith("agent.horizon=20, and an episode has at most 20 steps: an episode shorter than")


@pytest.mark.parametrize(
    ("keys", "largest", "words"),
    [
        # By hand: 101 bins from -10 to 10 are 0.2 apart; e^0.2 - 1 = 0.2214, e^10 - 1 = 22025.
        ((), 0.222, None),
        ((), 0.221, "are smaller than one bin, which is 0.221 wide"),
        ((), 0.0, None),  # random play may never see one
        ((), 22_025.0, None),
        ((), 22_026.0, "lie outside the bins, which end at 22,025.5"),
        (("reward.scale=0.1",), 2.2, "are smaller than one bin"),
        (("reward.scale=10",), 2_203.0, "lie outside the bins"),
        (("agent.bin_low=-1",), 1.72, "lie outside the bins, which end at 1.72"),
    ],
)
def test_rewards_against_the_bins(lab: Project, keys: tuple[str, ...], largest: float, words: str | None) -> None:
    made = load_spec(lab.root / QUICK, ["agent.bins=101", *keys]).spec
    found = out_of_range(made, Look(20, largest))
    assert (found is None) if words is None else (found is not None and words in found[0])


def test_environments_that_are_not_to_be_made_or_can_not_are_passed_over(lab: Project) -> None:
    short = [plan(lab, "agent.horizon=20", "agent.rho=0.9")]
    assert lint(lab, short, "local", environments=False) == lint(lab, short, "debug") == []
    assert lint(lab, [plan(lab, "agent.horizon=20", "agent.rho=0.9", "env.id=Nowhere-v0")], "local") == []


def test_a_game_counts_its_goals(lab: Project) -> None:
    """Random play sees few of them, and everything else in it is small."""
    assert said(lab, [plan(lab, "env.id=hockey", "env.max_episode_steps=null", "agent.bins=101")]) == []


def test_every_rule_can_be_silenced_by_name(lab: Project) -> None:
    loud = [plan(lab, "agent.horizon=18", changes=4)]
    assert said(lab, loud, "local", "changes") == ["temporal-weight"]
    assert said(lab, loud, "local", *RULES) == []
    short = [plan(lab, "agent.horizon=20", "agent.rho=0.9", "reward.scale=1e-3")]
    assert said(lab, short) == ["episode-length", "reward-range"]
    assert said(lab, short, "local", "episode-length") == ["reward-range"]
    assert said(lab, short, "local", *LOOKING_RULES) == []
    names = "temporal-weight, run-time, changes, episode-length, reward-range, gpu-memory, memory, partition-time"
    with pytest.raises(UsageError, match=f"no such rule; there are: {names}"):
        lint(lab, loud, "local", ["horizon"])
    with pytest.raises(UsageError, match="did you mean 'run-time'"):
        check_rules(["changes", "runtime"])


def test_a_spec_silences_rules_for_its_own_jobs(lab: Project) -> None:
    here = plan(lab, "agent.horizon=20", "agent.rho=0.5", "lint.silent=[temporal-weight, episode-length]")
    there = plan(lab, "agent.horizon=20", "agent.rho=0.5")
    assert [(f.check, numbers) for f, numbers in lint(lab, [here, there], "local")] == [
        ("temporal-weight", [1]),
        ("episode-length", [1]),
    ]


def test_a_spec_may_name_every_rule_and_no_other(lab: Project) -> None:
    assert set(get_args(LintRule)) == {*RULES, *LOOKING_RULES, *SILENCEABLE}
    with pytest.raises(SpecError, match="one of: temporal-weight"):
        plan(lab, "lint.silent=[horizon]")


def test_it_is_kept_for_the_record_and_only_told(
    lab: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "_estimate", lambda *_: None)
    plans = [plan(lab), plan(lab, "agent.horizon=18")]
    assert [len(p.warned) for p in with_advice(plans, lint(lab, plans, "local"))] == [0, 1]
    words = ["submit", QUICK, "--cluster", "local", "--dry-run", "agent.horizon=18"]
    assert main(words) == 0
    assert "--no-lint temporal-weight for silence" in capsys.readouterr().err
    assert main([*words, "--no-lint", "temporal-weight"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert main([*words, "--no-lint", "horizon"]) == 2
