"""Settings named as causes, against what a config says."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_fixtures import load

from tdmpc_lab.config.causes import has_setting, other_value

SPEC = """\
env: {id: hockey, opponent: weak, options: {mode: 1}}
agent: {horizon: 3, precision: auto}
reward: {shaping: on}
slurm: {memory: 16G}
phases: [{steps: 100}, {env: {opponent: strong}}]
"""


@pytest.mark.parametrize(
    ("setting", "other"),
    [
        ("agent.horizon=3", None),
        ("agent.horizon=18", "agent.horizon=3"),
        ("agent.horizon = 18", "agent.horizon=3"),
        ("reward.scale=1.0", None),
        ("reward.scale=2", "reward.scale=1.0"),
        ("reward.shaping=on", None),
        ("reward.shaping=off", "reward.shaping=on"),
        ("reward.backprop=off", None),
        ("reward.backprop=on", "reward.backprop=off"),
        ("reward.backprop.bonus=3", "reward.backprop=off"),
        ("env.opponent=weak", None),
        ("env.opponent=strong", None),  # in its second phase
        ("env.opponent=random", "env.opponent=weak"),
        ("env.options.mode=2", "env.options.mode=1"),
        ("env.options.side=2", "env.options={mode: 1}"),
        ("slurm.memory=16G", None),
        ("slurm.memory=32G", 'slurm.memory="16G"'),
        # the job itself has found these: they may be what it had
        ("agent.precision=bfloat16", None),
        ("train.threads=4", None),
    ],
)
def test_what_a_config_has_instead(tmp_path: Path, setting: str, other: str | None) -> None:
    assert other_value(load(tmp_path, SPEC), setting) == other


def test_where_a_job_runs_is_a_setting_too(tmp_path: Path) -> None:
    spec = load(tmp_path, SPEC)
    assert has_setting(spec, "slurm.memory=16G")
    assert not has_setting(spec, "slurm.memory=32G")
