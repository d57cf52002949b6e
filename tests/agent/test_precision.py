from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from agent_fixtures import TINY, perturbed, random_batch, tiny_agent

from tdmpc_lab.agent import device as precision
from tdmpc_lab.agent.device import ChosenPrecision, choose_precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def measured_anew():
    precision._by_measurement.cache_clear()
    yield
    precision._by_measurement.cache_clear()


@pytest.mark.parametrize(("low_ms", "chosen"), [(0.5, "bfloat16"), (0.9, "float32"), (2.0, "float32")])
def test_auto_on_a_cpu_goes_by_a_measurement(monkeypatch, low_ms, chosen):
    monkeypatch.setattr(precision, "product_ms", lambda width, dtype: 1.0 if dtype == torch.float32 else low_ms)
    found = choose_precision("auto", CPU, 512)
    assert found.name == chosen
    assert f"{low_ms:.2f} ms in bfloat16 and 1.00 ms in float32" in str(found)


def test_a_measurement_is_made_once(monkeypatch):
    calls = []
    monkeypatch.setattr(precision, "product_ms", lambda width, dtype: calls.append(dtype) or 1.0)
    choose_precision("auto", CPU, 512)
    made = len(calls)
    choose_precision("auto", CPU, 512)
    assert len(calls) == made > 0


def test_narrow_layers_are_never_measured(monkeypatch):
    monkeypatch.setattr(precision, "product_ms", lambda *_: pytest.fail("measured"))
    assert choose_precision("auto", CPU, 128).name == "float32"


def test_the_measurement_itself():
    assert 0 < precision.product_ms(64, torch.float32) < 1000
    assert 0 < precision.product_ms(64, torch.bfloat16) < 1000


@pytest.mark.parametrize(
    ("capability", "name", "updating"),
    [
        ((9, 0), "bfloat16", torch.bfloat16),
        ((8, 0), "bfloat16", torch.bfloat16),
        ((7, 5), "float16", torch.float32),
        ((6, 1), "float32", torch.float32),
    ],
)
def test_auto_on_cuda_goes_by_the_capability(monkeypatch, capability, name, updating):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    found = choose_precision("auto", torch.device("cuda", 0), 512)
    assert (found.name, found.updating) == (name, updating)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_what_the_spec_says_is_taken(name):
    agent = tiny_agent(config=dataclasses.replace(TINY, precision=name))
    perturbed(agent.model)
    assert agent.precision.name == name
    assert agent.rollouts.dtype == getattr(torch, name)
    losses = agent.update(random_batch())
    assert losses["loss/total"].isfinite()
    assert all(p.dtype == torch.float32 for p in agent.model.parameters())
    action = agent.act(np.zeros((1, 5), np.float32), agent.plan_state(1, seed=0), explore=True)
    assert np.abs(action).max() <= 1


def test_a_resumed_run_on_the_same_machine_goes_on_with_what_auto_had_chosen(monkeypatch):
    first, second, elsewhere = tiny_agent(), tiny_agent(), tiny_agent()
    first.use_precision(ChosenPrecision("bfloat16", "measured"))
    state = first.state_dict()
    second.load_state_dict(state)
    assert second.precision.name == "bfloat16"
    for k in range(2):
        first.update(random_batch(seed=k))
        second.update(random_batch(seed=k))
    expected, found = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    state["precision"]["machine"] = "another"
    elsewhere.load_state_dict(state)
    assert elsewhere.precision.name == "float32"
    fixed = tiny_agent(config=dataclasses.replace(TINY, precision="float32"))
    fixed.load_state_dict(first.state_dict())
    assert fixed.precision.name == "float32"
    del state["precision"]
    elsewhere.load_state_dict(state)  # of an older version
