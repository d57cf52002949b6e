from __future__ import annotations

import pytest

from tdmpc_lab.agent.describe import describe
from tdmpc_lab.config.schema import AgentConfig, PlannerConfig

Q_FUNCTION_LAYERS = """\
    (0-4): 5 x QFunction(
      (net): Sequential(
        (0): Linear(in_features=1028, out_features=512, bias=True)
        (1): LayerNorm((512,), eps=1e-05, elementwise_affine=True)
        (2): Dropout(p=0.01, inplace=False)
        (3): Mish()
        (4): Linear(in_features=512, out_features=512, bias=True)"""

POLICY_HEADS = """\
  (mean_head): Linear(in_features=512, out_features=4, bias=True)
  (log_std_head): Linear(in_features=512, out_features=4, bias=True)
)"""


@pytest.fixture(scope="module")
def reference():
    return describe(18, 4, AgentConfig(discount=0.99), PlannerConfig())


def test_sections_in_the_log_s_order_with_its_numbers(reference):
    text = str(reference)
    wanted = [
        "MODEL-BASED RL COMPONENTS:",
        "1. ENCODER NETWORK:",
        "(0): Linear(in_features=18, out_features=512, bias=True)",
        "(10): SimNorm()",
        "Trainable Parameters: 1,063,424",
        "2. DYNAMICS MODEL:",
        "(10): LayerNorm((1024,), eps=1e-05, elementwise_affine=True)",
        "(simnorm): SimNorm()",
        "Trainable Parameters: 1,582,592",
        "3. REWARD MODEL:",
        "(9): Linear(in_features=512, out_features=101, bias=True)",
        "Trainable Parameters: 1,107,045",
        "3a. TERMINATION MODEL:",
        "(4): Linear(in_features=256, out_features=1, bias=True)",
        "Trainable Parameters: 328,449",
        "4. Q ENSEMBLE:",
        "5 Q-networks for value estimation",
        Q_FUNCTION_LAYERS,
        "Trainable Parameters: 5,535,225",
        "5. TARGET Q ENSEMBLE:",
        "Same architecture as Q Ensemble",
        "Trainable Parameters: 0",
        "6. POLICY NETWORK:",
        POLICY_HEADS,
        "Trainable Parameters: 1,057,288",
        "PARAMETER SUMMARY:",
        "World Model (Encoder + Dynamics + Reward + Termination + Q): 9,616,735",
        "Policy Network: 1,057,288",
        "Target Q Network: 0",
        "TOTAL TRAINABLE PARAMETERS: 10,674,023",
        "OPTIMIZERS:",
        "World Model + Q Optimizer: Adam (LR: 0.0003)",
        "Encoder: Adam (LR: 9e-05",
        "Policy Optimizer: Adam (LR: 0.0003)",
        "MPC PLANNER:",
        "Type: MPPI (Model Predictive Path Integral)",
        "Horizon: 9",
        "Samples per iteration: 512",
        "Planning iterations: 6",
        "Temperature: 0.5",
    ]
    position = 0
    for piece in wanted:
        found = text.find(piece, position)
        assert found >= 0, f"{piece!r} is missing or out of order"
        position = found + len(piece)


def test_termination_reads_the_latent_alone(reference):
    section = next(s for s in reference.sections if s.number == "3a")
    assert "action" not in section.purpose
    assert "in_features=1024" in section.layers


def test_plain_data_says_the_same(reference):
    data = reference.as_dict()
    assert [p["number"] for p in data["parts"]] == ["1", "2", "3", "3a", "4", "5", "6"]
    assert data["parameters"]["total"] == 10_674_023
    assert data["planner"] == {
        "type": "MPPI",
        "horizon": 9,
        "samples": 512,
        "iterations": 6,
        "elites": 64,
        "policy_trajectories": 24,
        "temperature": 0.5,
    }
    assert data["optimizers"]["encoder_lr"] == pytest.approx(9e-5)


def test_other_sizes():
    report = describe(
        7,
        21,
        AgentConfig(latent_dim=64, hidden_dim=32, hidden_layers=2, q_heads=2, simnorm_dim=4, bins=11),
        PlannerConfig(),
        episode_length=200,
    )
    text = str(report)
    assert "(0-1): 2 x QFunction(" in text
    assert "SimNorm(group=4)" in text
    assert "Planning iterations: 8" in text  # 21 action dimensions
    assert report.discount == pytest.approx(0.975)
    by_hand = (7 * 32 + 32) + 2 * 32 + (32 * 32 + 32) + 2 * 32 + (32 * 64 + 64)
    assert report.counts["encoder"] == by_hand
