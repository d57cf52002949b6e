"""Updates through static buffers, as a CUDA graph needs them; on a CPU the same path without the capture."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from agent_fixtures import TINY, TINY_PLANNER, batch_on, perturbed, random_batch

from tdmpc_lab.agent import Agent, Batch, graphs, graphs_check
from tdmpc_lab.agent.captured_update import CapturedUpdate
from tdmpc_lab.agent.device import ChosenPrecision
from tdmpc_lab.agent.native import choose
from tdmpc_lab.agent.native.choose import Kernels
from tdmpc_lab.agent.static_call import WARM_UP

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def made(device: str, *, captured: bool, precision: str = "float32") -> Agent:
    agent = Agent(5, 2, agent=dataclasses.replace(TINY, dropout=0.1), planner=TINY_PLANNER, seed=1, device=device)
    agent.use_precision(ChosenPrecision(precision, "for a test"))
    agent.kernels = Kernels("for a test", captured=captured)
    perturbed(agent.model, scale=0.05)
    return agent


def batch_of(seed: int, device: str) -> Batch:
    return batch_on(random_batch(seed=seed), device)


def same(found: Agent, wanted: Agent) -> None:
    for a, b in zip(found.model.parameters(), wanted.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.learner.scale.value, wanted.learner.scale.value)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", DEVICES)
def test_updates_are_the_same(device: str, precision: str) -> None:
    plain, captured = (made(device, captured=c, precision=precision) for c in (False, True))
    for k in range(2 * WARM_UP):
        batch = batch_of(k, device)
        expected, found = plain.update(batch), captured.update(batch)
        assert list(found) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4, msg=name)
    same(captured, plain)


@pytest.mark.parametrize("device", DEVICES)
def test_losses_of_one_update_outlive_the_next(device: str) -> None:
    agent = made(device, captured=True)
    told = [agent.update(batch_of(k, device)) for k in range(WARM_UP + 2)]
    first, second = (losses["loss/total"].item() for losses in told[-2:])
    assert first != second


@pytest.mark.parametrize("device", DEVICES)
def test_a_loaded_checkpoint_is_trained_on(device: str) -> None:
    """A capture made before it would write to what the optimizers kept then."""
    plain, captured = (made(device, captured=c) for c in (False, True))
    for k in range(WARM_UP + 2):
        captured.update(batch_of(k, device))
    state = copy.deepcopy(plain.state_dict())
    captured.load_state_dict(state)
    for k in range(WARM_UP + 2):
        plain.update(batch_of(k, device))
        captured.update(batch_of(k, device))
    same(captured, plain)


@pytest.mark.parametrize("device", DEVICES)
def test_whoever_keeps_copies_of_weights_sees_that_they_changed(device: str) -> None:
    agent = made(device, captured=True)
    for k in range(WARM_UP + 1):
        agent.update(batch_of(k, device))
    before = [p._version for p in agent.model.parameters()]
    agent.update(batch_of(9, device))
    assert all(p._version > version for p, version in zip(agent.model.parameters(), before, strict=True))


def test_batches_of_another_size_get_a_call_of_their_own() -> None:
    agent = made("cpu", captured=True)
    update = CapturedUpdate(agent.learner)
    batch = batch_of(0, "cpu")
    given = {f.name: tensor for f in dataclasses.fields(batch) if (tensor := getattr(batch, f.name)) is not None}
    half = Batch(**{name: tensor[:, ::2] for name, tensor in given.items()})
    for _ in range(WARM_UP + 1):
        update(batch)
        update(half)
    assert len(update._calls) == 2
    assert not any(group["capturable"] for group in agent.learner.model_optimizer.param_groups)


def test_the_test_tells_a_wrong_capture_from_a_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert graphs_check.compare("cpu") == graphs.GOOD
    with monkeypatch.context() as patch:
        patch.setattr(CapturedUpdate, "__call__", lambda self, batch: {})
        assert graphs_check.compare("cpu") == "captured updates move the weights by 1 of their way elsewhere"
    monkeypatch.setattr("tdmpc_lab.agent.planner._extended", lambda x, dim, more: torch.zeros_like(x))
    assert graphs_check.compare("cpu").startswith("captured plans act ")


def test_rounding_alone_is_no_wrong_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a batch that is filled up has products of another shape, so other roundings: in bfloat16 they make
    another sequence an elite now and then, and the action another one."""
    monkeypatch.setattr("tdmpc_lab.agent.agent.choose_precision", lambda *_: ChosenPrecision("bfloat16", "for a test"))
    product, generator = torch.addmm, torch.Generator().manual_seed(0)

    def rounding(bias: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        out = product(bias, x, weight)
        if (
            out.dtype != torch.bfloat16 or len(x) % 3 == 0
        ):  # of three environments, not of the four they are filled up to
            return out
        return (out * (1 + 2**-7 * (torch.rand(out.shape, generator=generator) < 0.05))).bfloat16()

    monkeypatch.setattr(torch, "addmm", rounding)
    assert graphs_check.compare("cpu") == graphs.GOOD


CUDA = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("wish", "said", "expected"),
    [
        ("auto", "good", "torch (captured in CUDA graphs)"),
        ("auto", "it took more than 180 s", "torch (call by call; CUDA graphs: it took more than 180 s)"),
        ("always", "not asked", "torch (captured in CUDA graphs)"),
        ("never", "not asked", "torch (call by call)"),
    ],
)
def test_what_is_captured_and_why(wish: str, said: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(graphs, "verdict", lambda device: asked.append(device) or said)
    kernels = choose.choose(dataclasses.replace(TINY, cuda_graphs=wish), CUDA)
    assert str(kernels) == expected
    assert kernels.captured == ("captured in" in expected)
    assert asked == (["cuda:0"] if wish == "auto" else [])


def test_a_good_verdict_is_kept_and_a_bad_one_asked_again(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TDMPC_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    answers = iter(["its process was ended by SIGSEGV", "good"])
    monkeypatch.setattr(graphs, "ask", lambda module, device: next(answers))
    for expected in ("its process was ended by SIGSEGV", "good", "good"):
        graphs.verdict.cache_clear()
        assert graphs.verdict("cuda:0") == expected
    graphs.verdict.cache_clear()


def test_the_question_is_answered_by_a_process_of_its_own() -> None:
    assert graphs.ask(graphs.CHECK, "cpu") == graphs.GOOD
    assert "device 'none' is not known" in graphs.ask(graphs.CHECK, "none")
