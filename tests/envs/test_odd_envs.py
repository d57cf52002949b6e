"""Environments with oddities: what is wrong is said in their own terms, and what they change harms no training."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import numpy as np
import odd_envs
import pytest
import torch

from tdmpc_lab.config.schema import EnvConfig
from tdmpc_lab.envs import make_env, undisturbed
from tdmpc_lab.envs.control import ControlEnv
from tdmpc_lab.errors import EnvironmentSpecError, TrainingError


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    odd_envs.register_all()  # again: after every test nothing is known to gymnasium that was not before
    monkeypatch.setattr(undisturbed, "_theirs", {})  # what an environment has set is for it alone, and not for others
    monkeypatch.setattr(undisturbed, "_told", set())


def made(name: str) -> ControlEnv:
    return make_env(EnvConfig(id=f"odd_envs:{name}-v0"))


def played(env: ControlEnv, steps: int = 10) -> int:
    """One episode; how many steps it took."""
    env.reset(1)
    for number in range(1, steps + 1):
        result = env.step(np.zeros(2, np.float32))
        if result.terminated or result.truncated:
            return number
    return steps


@pytest.mark.parametrize(
    ("name", "step", "said"),
    [
        ("FourValues", 1, "step returned a tuple of 4 values; gymnasium has it return five: observation, reward, term"),
        ("NothingReturned", 1, "step returned None; gymnasium has it return five"),
        ("NoReward", 1, "the reward is None; one number is needed"),
        ("TwoRewards", 1, r"the reward is an array of shape \(2,\); one number is needed"),
        ("WordReward", 1, "the reward is 'good'; one number"),
        ("TwoEnds", 1, r"terminated is an array of shape \(2,\); one truth value is needed"),
        ("NoEnd", 1, "truncated is None; one truth value"),
        ("NoInfo", 1, "info is None; a dict is needed"),
        (
            "NoObservation",
            1,
            "step returned what is not of its observation space: the observation is None; numbers",
        ),
        ("Ragged", 1, "the observation is a list of 2 values; numbers are needed"),
        ("ObservationAlone", 0, r"reset returned an array of shape \(3,\); gymnasium has it return two values"),
        ("TwoNumbers", 0, r"reset returned an array of shape \(2,\); gymnasium has it return two values"),
        (
            "NoSeed",
            0,
            r"its reset does not take seed and options, as in the old gym: write def reset\(self, \*, seed",
        ),
        ("KeyMissing", 0, r"reset returned what is .* space: the observation\['a'\] lacks 'c'; it has 'b'"),
        ("NoMapping", 0, r"the observation is an array of shape \(4,\), and its space a Dict with the keys 'a', 'd'"),
        ("PartMissing", 0, "the observation is a tuple of 1 value, and its space a Tuple of 2"),
    ],
)
def test_what_an_environment_returns_amiss_is_said_in_its_terms(name: str, step: int, said: str) -> None:
    where = f"environment 'odd_envs:{name}-v0', step {step} of the episode with seed 1: "
    with pytest.raises(TrainingError, match=said) as caught:
        played(made(name))
    assert str(caught.value).startswith(where)
    assert "raised" not in str(caught.value)


def test_numbers_in_arrays_of_one_are_taken_as_they_are_meant() -> None:
    assert played(made("OneInArrays")) == played(made("Base")) == 10


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CloseFails", "no display to close"),
        ("CloseExits", "it tried to end the process (SystemExit 3)"),
        ("CloseEndsGenerators", "it tried to end the process (GeneratorExit)"),
    ],
)
def test_an_environment_that_can_not_be_closed_is_told_of_once(
    name: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        env = made(name)
        played(env)
        env.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"environment 'odd_envs:{name}-v0': close raised RuntimeError: {said}"
    ]


def test_an_environment_that_ends_the_process_is_said_in_its_terms() -> None:
    with pytest.raises(TrainingError, match=r"step 1 .* it tried to end the process \(SystemExit\)"):
        played(made("Exits"))
    with pytest.raises(EnvironmentSpecError, match=r"it tried to end the process \(SystemExit no licence\)"):
        made("ConstructorExits")


def state() -> tuple[object, ...]:
    handlers = tuple(map(signal.getsignal, (signal.SIGTERM, signal.SIGUSR2)))
    of_torch = (
        *(torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_device()),
        *(torch.is_inference_mode_enabled(), torch.are_deterministic_algorithms_enabled()),
        torch.get_float32_matmul_precision(),
    )
    return Path.cwd(), np.geterr(), handlers, of_torch, sys.stdout, sys.stderr


@pytest.mark.parametrize(
    "name",
    [
        *("Float64", "NoGradients", "Elsewhere", "Signals", "Strict", "InferenceMode", "MetaDevice", "Silent"),
    ],
)
def test_what_an_environment_changes_does_not_reach_the_training(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = state()
    env = made(name)
    assert state() == before
    env.reset(1)
    assert state() == before
    env.step(np.zeros(2, np.float32))
    assert state() == before
    assert played(env) == 10
    assert state() == before
    weight = torch.nn.Linear(2, 2).weight
    weight.square().sum().backward()
    assert weight.grad is not None
    if name == "Elsewhere":  # twice, the second time from where it had gone
        assert (tmp_path / "elsewhere" / "elsewhere").is_dir()
