"""`doctor JOB`: a job's own figures in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_cancel import job, lab  # noqa: F401 - `lab` is a fixture

from tdmpc_lab.app.diagnosis import Figures, Sign, last_figures, signs
from tdmpc_lab.cli.main import main
from tdmpc_lab.config.loader import spec_from_dict
from tdmpc_lab.config.schema import Spec
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
    "diag/planner_gain": 0.2,
    "diag/planner_distance": 0.4,
    "diag/replay_age_mean": 12_000.0,
    "diag/never_sampled": 0.0,
    "grad_norm/model": 3.0,
    "grad_norm/policy": 0.1,
}


@pytest.fixture
def spec() -> Spec:
    return spec_from_dict({"name": "x", "env": {"id": "Pendulum-v1"}, "agent": {"horizon": 3}})


def judged(spec: Spec, **changed: float) -> dict[str, Sign]:
    values = HEALTHY | {f"diag/{name}": value for name, value in changed.items()}
    return {sign.name: sign for sign in signs(Figures(100, values, 3), spec)}


def test_a_healthy_agent(spec: Spec) -> None:
    found = judged(spec)
    assert {sign.level for sign in found.values()} == {"ok"}
    assert list(found) == ["world model", "value", "bins", "termination", "actions", "planner", "replay", "gradients"]


@pytest.mark.parametrize(
    ("name", "changed", "said", "setting"),
    [
        ("world model", {"model_error_1": 0.9}, "hardly predicts better", "agent.lr"),
        ("world model", {"model_error_3": 0.7}, "guesswork", "agent.horizon below 3"),
        ("value", {"value_bias": 2.5}, "overestimated", "agent.q_heads"),
        ("value", {"value_bias": -2.5}, "underestimated", "train longer"),
        ("bins", {"value_clipped": 0.02}, "2.00% of the returns lie outside [-10, 10]", "reward.scale"),
        ("termination", {"termination_recall": 0.2}, "foreseen 20%", "agent.termination_weight"),
        ("termination", {"terminated": 0.0}, "no episode ended by itself", "agent.termination_weight"),
        ("actions", {"policy_saturation": 0.95, "action_saturation": 0.9}, "stuck at the ends", "agent.entropy_weight"),
        ("planner", {"planner_gain": -1.0}, "worse than the policy", "planner.samples"),
        ("replay", {"never_sampled": 0.4}, "40% of the episodes are never sampled", "agent.horizon below 3"),
    ],
)
def test_what_looks_wrong_is_said_alone(
    spec: Spec, name: str, changed: dict[str, float], said: str, setting: str
) -> None:
    found = judged(spec, **changed)
    assert [sign.name for sign in found.values() if sign.level == "warning"] == [name]
    assert said in found[name].found
    assert setting in found[name].look_at


def test_a_sure_policy_is_no_trouble_where_planning_corrects_it(spec: Spec) -> None:
    assert judged(spec, policy_saturation=0.95, action_saturation=0.3)["actions"].level == "ok"


def test_gradients_that_are_clipped_away(spec: Spec) -> None:
    found = {s.name: s for s in signs(Figures(1, HEALTHY | {"grad_norm/model": 200.0}, 3), spec)}
    assert found["gradients"].level == "warning"
    assert "most of model's is clipped away" in found["gradients"].found


def test_the_newest_figures_count_with_the_newest_losses() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 10, "diag/value_bias": 1.0, "diag/termination_recall": 0.5},
        {"step": 20, "diag/value_bias": 2.0},
        {"step": 20, "split": "eval", "return_mean": 3.0},
        {"step": 25, "grad_norm/model": 4.0, "loss/total": float("nan")},
    ]
    figures = last_figures(rows, 3)
    assert figures is not None
    assert figures.step == 20
    assert figures.values == {"diag/value_bias": 2.0, "grad_norm/model": 4.0}
    assert last_figures(rows[2:], 3) is None


def test_on_the_command_line(
    lab: Project,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(lab.root)
    Path("experiments").mkdir()
    paths = job(lab, "7")
    paths.resolved.write_text("name: x\nenv: {id: Pendulum-v1}\nagent: {horizon: 3}\n")
    assert main(["doctor", "7"]) == 2
    assert "job 7 has no diagnostics yet" in capsys.readouterr().err
    append_jsonl(paths.metrics, {"step": 40, "split": "train", **HEALTHY})
    assert main(["doctor", "7"]) == 0
    assert "ok       value" in capsys.readouterr().out
    append_jsonl(paths.metrics, {"step": 50, "split": "train", **HEALTHY, "diag/value_bias": 9.0})
    assert main(["doctor", "last", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert (shown["job"], shown["step"]) == ("7", 50)
    assert [sign["name"] for sign in shown["signs"] if sign["level"] == "warning"] == ["value"]
