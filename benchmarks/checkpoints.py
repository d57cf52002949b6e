"""What a checkpoint costs when the replay holds a million steps of laser hockey: size, time to save and to load.

    .venv/bin/python benchmarks/checkpoints.py [--steps 1000000] [--new 25000] [--repeats 5] [--device cpu]

The agent has the default size; episodes have 251 steps of random numbers, 18 observations and 4 actions. `held` is the
time for which training waits, the rest goes on behind its back.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from tdmpc_lab.agent import Agent, Episode, Replay
from tdmpc_lab.training.checkpoints import CheckpointStore

OBSERVATION, ACTION, LENGTH = 18, 4, 251
MIB = 2**20


def main() -> None:
    """Save everything once, then `--repeats` times what is new, and load; a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help="steps in the replay")
    parser.add_argument("--new", type=int, default=25_000, help="new steps between two checkpoints")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    agent = Agent(OBSERVATION, ACTION, episode_length=LENGTH, device=args.device)
    replay = make_replay(args.steps, agent.device)
    rng = np.random.default_rng(1)
    add(replay, rng, args.steps)
    agent.update(replay.sample(64))  # the optimizers have their moments from here on
    with tempfile.TemporaryDirectory() as name:
        store = CheckpointStore(Path(name))
        report("everything", [save(store, 0, agent, replay)])
        saves = []
        for number in range(1, args.repeats + 1):
            add(replay, rng, args.new)
            saves.append(save(store, number, agent, replay))
        report(f"{args.new:,} new steps", saves)
        sizes = [path.stat().st_size / MIB for path in Path(name).iterdir()]
        print(f"in the folder: {len(sizes)} files, {sum(sizes):.0f} MiB")
        print(f"loading: {spread([load(Path(name), agent, args.steps) for _ in range(args.repeats)])} s")


def make_replay(steps: int, device: torch.device) -> Replay:
    """Room for that many steps."""
    return Replay(capacity=steps, observation_dim=OBSERVATION, action_dim=ACTION, horizon=3, device=device)


def add(replay: Replay, rng: np.random.Generator, steps: int) -> None:
    """Whole episodes, that many steps at most."""
    for _ in range(steps // (LENGTH + 1)):
        replay.add(
            Episode(
                observations=rng.standard_normal((LENGTH + 1, OBSERVATION), dtype=np.float32),
                actions=rng.standard_normal((LENGTH, ACTION), dtype=np.float32),
                rewards=rng.standard_normal(LENGTH, dtype=np.float32),
                terminated=np.zeros(LENGTH, dtype=np.bool_),
                truncated=np.zeros(LENGTH, dtype=np.bool_),
            )
        )


def save(store: CheckpointStore, step: int, agent: Agent, replay: Replay) -> tuple[float, float, float]:
    """Seconds held and seconds of writing, MiB written."""
    began = time.perf_counter()
    store.begin(step, {"agent": agent.state_dict()}, replay)
    held = time.perf_counter() - began
    saved = store.finish()
    assert saved is not None
    return held, saved.write_s, saved.size / MIB


def load(folder: Path, agent: Agent, steps: int) -> float:
    """Seconds to read and check the newest checkpoint, and to put it into an agent and a replay."""
    replay = make_replay(steps, agent.device)
    began = time.perf_counter()
    state = CheckpointStore(folder).load_latest()
    assert state is not None
    agent.load_state_dict(state["agent"])
    replay.load_state_dict(state["replay"])
    return time.perf_counter() - began


def report(what: str, saves: list[tuple[float, float, float]]) -> None:
    """One line of the table."""
    held, write, size = ([save[i] for save in saves] for i in range(3))
    print(f"{what}: {statistics.median(size):.1f} MiB, held {spread(held)} s, written in {spread(write)} s")


def spread(values: list[float]) -> str:
    """Median [least, most]."""
    return f"{statistics.median(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


if __name__ == "__main__":
    main()
