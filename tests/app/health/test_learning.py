"""`doctor JOB`: a job's own figures in words."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from queue_fixtures import job, lab  # noqa: F401 - `lab` is a fixture

from tdmpc_lab.app.health.learning import LearningFigures, last_figures, signs
from tdmpc_lab.cli.main import main
from tdmpc_lab.config.loader import spec_from_dict
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import Finding
from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.paths import Project

HEALTHY = {
    "diag/model_error_1": 0.01,
    "diag/model_error_3": 0.05,
    "diag/value_predicted": 10.0,
    "diag/value_realised": 9.5,
    "diag/value_bias": 0.5,
    "diag/value_spread": 2.0,
    "diag/reward_clipped": 0.0,
    "diag/value_clipped": 0.0,
    "diag/terminated": 0.004,
    "diag/termination_recall": 0.9,
    "diag/termination_precision": 0.8,
    "diag/action_saturation": 0.5,
    "diag/policy_saturation": 0.3,
    "diag/action_stuck": 0.3,
    "diag/policy_std": 0.4,
    "diag/planner_distance": 0.4,
    "diag/replay_age_mean": 12_000.0,
    "diag/never_sampled": 0.0,
    "eval/return_mean": 5.0,
    "eval/return_std": 2.0,
    "eval/policy_return_mean": 4.0,
    "eval/win": 0.8,
    "eval/policy_win": 0.7,
    "replay/steps": 40_000.0,
    "updates": 60_000.0,
    "grad_norm/model": 3.0,
    "grad_norm/encoder": 0.3,
    "grad_norm/policy": 0.1,
    "diag/latent_variance": 0.2,
    "random/return": -11.0,
}
STEP = 80_000


@pytest.fixture
def spec() -> Spec:
    return spec_from_dict(
        {"name": "x", "env": {"id": "Pendulum-v1"}, "agent": {"horizon": 3}, "train": {"steps": 100_000}}
    )


def judged(spec: Spec, changed: dict[str, float], step: int = STEP) -> dict[str, Finding]:
    values = HEALTHY | {
        (name if "/" in name or name == "updates" else f"diag/{name}"): v for name, v in changed.items()
    }
    return {sign.check: sign for sign in signs(LearningFigures(step, values, 3), spec)}


def test_a_healthy_agent(spec: Spec) -> None:
    found = judged(spec, {})
    assert {sign.level for sign in found.values()} == {"ok"}
    assert list(found) == [
        "world model",
        "value",
        "bins",
        "termination",
        "actions",
        "policy",
        "planner",
        "replay",
        "gradients",
    ]


@pytest.mark.parametrize(
    ("name", "changed", "said", "setting"),
    [
        ("world model", {"model_error_1": 0.9}, "hardly predicts better", "agent.lr"),
        ("world model", {"model_error_3": 0.7}, "guesswork", "agent.horizon below 3"),
        ("world model", {"model_error_1": 1e11}, "collapsed or blown up", "agent.lr"),
        ("value", {"value_bias": 2.5, "value_predicted": 12.0}, "overestimated", "train.updates_per_step"),
        ("value", {"value_bias": -10.5, "value_predicted": -1.0}, "underestimated", "train longer"),
        ("value", {"value_bias": -6.5, "value_predicted": 3.0}, "still on its way from 0", "train longer"),
        (
            "value",
            {"value_bias": 80.0, "value_predicted": -60.0, "value_realised": -140.0},
            "still on its way from 0",
            "agent.tau (higher)",
        ),
        ("bins", {"value_clipped": 0.02}, "2.00% of the returns lie outside [-10, 10]", "reward.scale"),
        ("termination", {"termination_recall": 0.2}, "20% of these foreseen 3 steps", "agent.termination_weight"),
        ("termination", {"terminated": 0.0}, "no episode ended by itself", "agent.termination_weight"),
        ("actions", {"action_stuck": 0.9}, "stuck at the ends", "agent.entropy_weight"),
        (
            "policy",
            {"policy_std": 7.0, "eval/policy_return_mean": -10.0},
            "it acts by chance",
            "agent.entropy: squashed",
        ),
        (
            "policy",
            {"policy_std": 0.003, "policy_saturation": 1.0, "eval/policy_return_mean": -13.0, "grad_norm/policy": 5e-6},
            "alone it keeps 0% of what planning gains over random play (return -13): 100% of its means are at the ends",
            "agent.entropy: squashed",
        ),
        (
            "policy",
            {"eval/policy_return_mean": -6.0},
            "it has learned little of what the planner finds",
            "agent.policy_prior: cloned",
        ),
        ("world model", {"latent_variance": 0.002}, "all look alike to it", "agent.encoder_norm: on"),
        ("planner", {"eval/policy_return_mean": 7.0}, "planning makes it worse", "planner.samples"),
        ("replay", {"never_sampled": 0.4}, "40% of the episodes are never sampled", "agent.horizon below 3"),
        ("replay", {"replay/steps": 600.0}, "the newest 600 steps only", "train.replay_capacity"),
        ("replay", {"updates": 700.0}, "700 updates in 80,000 steps", "train.updates_per_step"),
        ("gradients", {"grad_norm/encoder": 0.0, "grad_norm/policy": 0.0}, "none reaches encoder, policy", "agent.lr"),
        ("gradients", {"grad_norm/model": 200.0}, "most of model's is clipped away", "agent.lr"),
    ],
)
def test_what_looks_wrong_is_said_alone(
    spec: Spec, name: str, changed: dict[str, float], said: str, setting: str
) -> None:
    found = judged(spec, changed)
    assert [sign.check for sign in found.values() if sign.level == "warning"] == [name]
    assert said in found[name].what
    assert setting in found[name].fix


def test_values_of_a_young_agent_are_on_their_way(spec: Spec) -> None:
    """A return of −140 and a value of −60 halfway there: nothing is overestimated, and time mends it."""
    changed = {"value_bias": 80.0, "value_predicted": -60.0, "value_realised": -140.0}
    assert judged(spec, changed, step=20_000)["value"].level == "ok"


def test_a_wide_spread_that_costs_nothing_is_only_reported(spec: Spec) -> None:
    found = judged(spec, {"policy_std": 7.0})["policy"]
    assert found.level == "ok"
    assert "its spread is 7 of at most 7.4" in found.what


def test_a_policy_is_not_judged_before_planning_is_better_than_chance(spec: Spec) -> None:
    changed = {"eval/return_mean": -6.0, "eval/policy_return_mean": -11.0, "policy_std": 7.0}
    assert judged(spec, changed)["policy"].level == "ok"


def test_a_deterministic_task_has_no_spread_to_measure_by(spec: Spec) -> None:
    """Planning 972 ± 11, the policy alone 900, random play 40: seven standard deviations, and nothing is wrong."""
    changed = {
        "eval/return_mean": 972.0,
        "eval/return_std": 11.0,
        "eval/policy_return_mean": 900.0,
        "random/return": 40.0,
    }
    assert judged(spec, changed)["policy"].level == "ok"


def test_ends_one_step_ahead_are_judged_where_they_are_learned(spec: Spec) -> None:
    assert judged(spec, {"termination_recall_1": 0.0})["termination"].level == "ok"
    past = dataclasses.replace(spec, train=dataclasses.replace(spec.train, past_ends=True))
    assert judged(past, {"termination_recall_1": 0.0})["termination"].level == "warning"
    assert "80% one step ahead" in judged(past, {"termination_recall_1": 0.8})["termination"].what


def test_planning_is_told_with_the_games_won_both_ways(spec: Spec) -> None:
    assert "won 80% and 70%" in judged(spec, {})["planner"].what


def test_the_newest_figures_count_with_the_newest_losses() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 3, "split": "train", "return": -4.0},
        {"step": 6, "split": "train", "return": -2.0},
        {"step": 10, "diag/value_bias": 1.0, "diag/termination_recall": 0.5},
        {"step": 20, "diag/value_bias": 2.0},
        {"step": 20, "split": "eval", "return_mean": 3.0, "opponent": "weak"},
        {"step": 25, "grad_norm/model": 4.0, "loss/total": float("nan"), "updates": 7},
        *({"step": 25, "split": "train", "return": 1.0} for _ in range(300)),
    ]
    figures = last_figures(rows, 3)
    assert figures is not None
    assert figures.step == 20
    assert figures.values == {
        "diag/value_bias": 2.0,
        "grad_norm/model": 4.0,
        "updates": 7.0,
        "eval/step": 20.0,
        "eval/return_mean": 3.0,
        "random/return": -3.0,
    }
    assert last_figures(rows[4:], 3) is None


def test_on_the_command_line(
    lab: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(lab.root)
    Path("experiments").mkdir()
    paths = job(lab, "7")
    paths.resolved.write_text("name: x\nenv: {id: Pendulum-v1}\nagent: {horizon: 3}\n")
    assert main(["doctor", "7"]) == 2
    assert "job 7 has no diagnostics yet" in capsys.readouterr().err
    append_jsonl(paths.events, {"time": "2026-01-01T00:00:00+00:00", "event": "failed", "cause": "the loss is NaN"})
    assert main(["doctor", "7"]) == 2
    assert "it failed: the loss is NaN" in capsys.readouterr().err
    append_jsonl(paths.metrics, {"step": 40, "split": "train", **HEALTHY})
    assert main(["doctor", "7"]) == 0
    assert "ok       value" in capsys.readouterr().out
    append_jsonl(paths.metrics, {"step": 50, "split": "train", **HEALTHY, "diag/never_sampled": 0.9})
    assert main(["doctor", "last", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert (shown["job"], shown["step"]) == ("7", 50)
    assert [sign["name"] for sign in shown["signs"] if sign["level"] == "warning"] == ["replay"]
