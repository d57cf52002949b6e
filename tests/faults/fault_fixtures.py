"""Trainings in processes of their own that end themselves in the middle of something, as `kill -9` would.

The processes are forked from a server that has torch loaded, so that one costs a fraction of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import torch

from tdmpc_lab import files
from tdmpc_lab.config.schema import AgentConfig, EnvConfig, EvalConfig, PlannerConfig, Spec, TrainConfig
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.training.build import Places, build_trainer
from tdmpc_lab.training.checkpoints import CheckpointStore
from tdmpc_lab.training.metrics import JsonlSink
from tdmpc_lab.training.saving import rows_there

LIMIT_S = 150
AGENT = AgentConfig(latent_dim=16, hidden_dim=16, hidden_layers=1, termination_dim=8, horizon=2, q_heads=2, bins=21)
PLANNER = PlannerConfig(samples=8, iterations=1, elites=4, policy_trajectories=2)
MAY_DIFFER = ("wall_s", "attempt", "steps_per_s", "checkpoint_s")

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["tdmpc_lab.training.build", "tdmpc_lab.app.run.worker", "gymnasium.envs.classic_control"]
)


@dataclass(frozen=True)
class Kill:
    """When a process ends itself: at the `number`-th change of a file (in the middle of it) or update, or at the first
    update after that many environment steps."""

    at: Literal["file", "update", "step"]
    number: int


def start_process(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Begin with a function of a module in a process of its own."""
    process = _SERVER.Process(target=target, args=arguments)
    process.start()
    return process


def run_process(target: Callable[..., None], *arguments: Any) -> int:
    """Run a function of a module in a process of its own; its exit code, −9 where it was killed."""
    process = start_process(target, *arguments)
    process.join(LIMIT_S)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError(f"{target.__name__}{arguments} took longer than {LIMIT_S} s")
    assert process.exitcode is not None
    return process.exitcode


def small_spec(steps: int, **train: Any) -> Spec:
    """A training of Pendulum with evaluations, two environments, and checkpoints that fall within episodes."""
    defaults: dict[str, Any] = {"seed_steps": 60, "batch_size": 4, "log_every": 10, "checkpoint_every": 26, "envs": 2}
    return Spec(
        name="faults",
        env=EnvConfig(id="Pendulum-v1", max_episode_steps=20),
        agent=AGENT,
        planner=PLANNER,
        train=TrainConfig(steps=steps, threads=1, device="cpu", **(defaults | train)),
        eval=EvalConfig(every=100, episodes=1),
    )


def train(folder: Path, spec: Spec, attempt: int, kill: Kill | None = None) -> None:
    """One attempt of a training in `folder`: continues what is there. Its weights are in `weights.pt` at the end."""
    folder.mkdir(exist_ok=True)
    if kill is not None and kill.at == "file":
        kill_at_file_change(kill.number)
    sink, store = JsonlSink(folder / "metrics.jsonl"), CheckpointStore(folder / "checkpoints")
    trainer = build_trainer(
        spec,
        sink=sink,
        places=Places(store, pool=folder / "pool"),
        attempt=attempt,
        on_event=lambda kind, fields: files.append_jsonl(folder / "events.jsonl", {"event": kind, **fields}),
    )
    store.sweep()
    state = store.load_latest(rows_there(sink))
    if state is None:
        sink.rewind(0)
    else:
        trainer.load_state_dict(state)
    if kill is not None and kill.at == "update":
        kill_at_call(trainer.agent, "update", lambda calls: calls == kill.number)
    if kill is not None and kill.at == "step":
        kill_at_call(trainer.agent, "update", lambda _calls: trainer.step >= kill.number)
    trainer.run()
    sink.close()
    torch.save(trainer.agent.state_dict(), folder / "weights.pt")


def train_with_kills(folder: Path, spec: Spec, kills: list[Kill]) -> int:
    """A training killed at each of `kills` in turn, then run to its end; how many of them it lived to see."""
    seen = 0
    for attempt, kill in enumerate(kills, start=1):
        code = run_process(train, folder, spec, attempt, kill)
        assert code in (0, -signal.SIGKILL), f"attempt {attempt}, {kill}: exit code {code}"
        seen += code != 0
    assert run_process(train, folder, spec, len(kills) + 1) == 0
    return seen


def outcome(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows without what may differ between two runs, and the agent: weights, optimizers, random state."""
    rows, _ = read_jsonl(folder / "metrics.jsonl")
    plain = [{key: value for key, value in row.items() if key not in MAY_DIFFER} for row in rows]
    return plain, torch.load(folder / "weights.pt", weights_only=True)


def same(one: Any, other: Any) -> bool:
    """Whether two trees of tensors are the same to the last bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def kill_at_call(owner: Any, name: str, when: Callable[[int], bool]) -> None:
    """This process ends at a call of a method, given how many calls there were with it."""
    original, calls = getattr(owner, name), []

    def counting(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if when(len(calls)):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)

    setattr(owner, name, counting)


def kill_at_file_change(number: int) -> None:
    """This process ends in the middle of its `number`-th change of a file: a write is half done by then."""
    left = [number]

    def dies() -> bool:
        left[0] -= 1
        return left[0] == 0

    def dying(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if dies():
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **named)

        return call

    def write(fd: int, data: Any) -> int:
        if dies():
            real_write(fd, memoryview(data)[: max(1, len(data) // 2)])
            os.kill(os.getpid(), signal.SIGKILL)
        return real_write(fd, data)

    real_write, os.write = os.write, write
    os.fsync, os.ftruncate = dying(os.fsync), dying(os.ftruncate)
    Path.replace, Path.unlink = dying(Path.replace), dying(Path.unlink)  # type: ignore[method-assign]
