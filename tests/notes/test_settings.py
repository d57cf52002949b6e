"""Settings as people write them."""

from __future__ import annotations

import pytest

from tdmpc_lab.app.checks.blamed import number_settings, switch_settings


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("Horizon 18", ["agent.horizon=18"]),
        ("horizon: 18, lr 3e-4", ["agent.horizon=18", "agent.lr=0.0003"]),
        ("more loggign , shorter horizion 5", ["agent.horizon=5"]),
        ("a horizon of 18 steps", ["agent.horizon=18"]),
        ("agent.horizon=18", ["agent.horizon=18"]),
        ("batch size 512", ["train.batch_size=512"]),
        ("Batch-Size = 512", ["train.batch_size=512"]),
        ("learning rate 0.001", ["agent.lr=0.001"]),
        ("500k steps", []),
        ("steps 500k, seed steps 1,000", ["train.steps=500000", "train.seed_steps=1000"]),
        ("horizon 9 instead of horizon 18", ["agent.horizon=9"]),
        ("not horizon 18", []),
        ("horizon 5-18", []),
        ("horizon 5 to 18", []),
        ("horizon 18.5", []),
        ("horizon 18b", []),
        ("horizon 0", []),
        ("start 5, hold 3, discount 0.9", []),
        ("seed 3", []),
        ("job 1969941 again", []),
        ("", []),
    ],
)
def test_numbers(text: str, settings: list[str]) -> None:
    assert number_settings(text) == settings


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("no backprop reward shaping", ["reward.backprop=off"]),
        ("run with backprop aber ohne reward shaping", ["reward.backprop=on", "reward.shaping=off"]),
        ("run with backward prop", ["reward.backprop=on"]),
        ("backprop is broken", []),
        ("run with minimal reward shaping", []),
    ],
)
def test_switches(text: str, settings: list[str]) -> None:
    assert switch_settings(text) == settings
