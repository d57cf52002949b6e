"""From a spec to a trainer: environments, agent and replay, all of one seed and one device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tdmpc_lab.agent import Agent, Replay
from tdmpc_lab.config.schema import Spec, TrainConfig
from tdmpc_lab.cpus import available_cpus
from tdmpc_lab.envs import EnvGroup, MirrorSigns, make_env
from tdmpc_lab.envs.hockey.opponents import FindOpponent
from tdmpc_lab.errors import EnvironmentSpecError
from tdmpc_lab.files import Guard
from tdmpc_lab.training.checkpoints import CheckpointStore
from tdmpc_lab.training.curriculum import Curriculum
from tdmpc_lab.training.evaluate import Evaluator
from tdmpc_lab.training.loop import EventCallback, RowObserver, Trainer
from tdmpc_lab.training.metrics import MetricSink
from tdmpc_lab.training.opponents import OpponentFiles, no_files
from tdmpc_lab.training.stop import StopFlag
from tdmpc_lab.training.video import VideoFolder, filming_problem
from tdmpc_lab.training.worlds import Worlds


@dataclass(frozen=True)
class Hardware:
    """What a job trains on, for its record."""

    device: str
    gpu: str | None
    threads: int
    torch: str
    kernels: str
    replay: str
    precision: str


def set_threads(train: TrainConfig) -> None:
    """Give torch the threads asked for, else as many as there are CPUs for this process."""
    torch.set_num_threads(train.threads or available_cpus())


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Give torch a single thread for a while: for small things, and where the processors are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def step_environment(spec: Spec, *, steps: int, find_opponent: FindOpponent | None = None) -> int:
    """Run the first `steps` random steps of one episode of the spec's environment; returns how many there were.

    Raises:
        EnvironmentSpecError: it can't be made or is not supported, or batches are to be mirrored and it can't be.
        TrainingError: it fails at a step.
    """
    env = make_env(spec.env, find_opponent=find_opponent)
    rng = np.random.default_rng(spec.train.seed)
    try:
        _mirror_signs(spec, env.mirror_signs)
        env.reset(spec.train.seed)
        for taken in range(1, steps + 1):
            result = env.step(rng.uniform(-1, 1, env.action_dim).astype(np.float32))
            if result.terminated or result.truncated:
                return taken
        return steps
    finally:
        env.close()


def _mirror_signs(spec: Spec, declared: MirrorSigns | None) -> MirrorSigns | None:
    """By which batches are mirrored; None where they are not. Raises EnvironmentSpecError where they can't be."""
    if not spec.train.mirror:
        return None
    if declared is None:
        raise EnvironmentSpecError(
            f"train.mirror is on, and '{spec.env.id}' declares no mirror symmetry (an attribute mirror_signs: two "
            "sequences of 1 and −1, one for the observation, one for the action): set train.mirror to off",
            key="train.mirror",
        )
    return declared


def build_agent(
    spec: Spec, observation_dim: int, action_dim: int, episode_length: int, mirror: MirrorSigns | None = None
) -> Agent:
    """The agent of a spec, on the device it names; `mirror` as `Agent` takes it.

    Raises:
        ConfigError, ExternalError: as `Agent`.
    """
    return Agent(
        observation_dim,
        action_dim,
        episode_length=episode_length,
        agent=spec.agent,
        planner=spec.planner,
        seed=spec.train.seed,
        device=spec.train.device,
        mirror=mirror,
    )


@dataclass(frozen=True)
class Places:
    """Where a training keeps its files beside the metrics; None for what is not kept."""

    checkpoints: CheckpointStore | None = None
    videos: Path | None = None
    pool: Path | None = None
    """Folder of the agent's past copies. Needed where the opponent `self` is."""
    opponents: OpponentFiles = no_files
    """The checkpoints of the opponents that are agents."""
    guard: Guard = nullcontext
    """Entered around every change of `videos` and `pool`; what it raises leaves them as they are."""


def build_trainer(
    spec: Spec,
    *,
    sink: MetricSink,
    places: Places | None = None,
    stop: StopFlag | None = None,
    observe: RowObserver | None = None,
    on_event: EventCallback | None = None,
    attempt: int = 1,
) -> Trainer:
    """Make everything a spec asks for and hand it to a `Trainer`.

    Sets torch's thread count: results are the same to the last bit only for the same number.

    Raises:
        EnvironmentSpecError: the environment can't be made or is not supported, or an opponent is not known.
        ConfigError, ExternalError: the agent's settings or device.
    """
    train = spec.train
    places = Places() if places is None else places
    set_threads(train)
    worlds = Worlds(spec, places.opponents, pool=places.pool, guard=places.guard)
    envs = EnvGroup(worlds.make, train.envs, train.seed)
    envs.episode_length = int(worlds.made_of["episode_length"])  # of the longest phase, not of the one just made
    mirror = _mirror_signs(spec, envs.mirror_signs)
    agent = build_agent(spec, envs.observation_dim, envs.action_dim, envs.episode_length, mirror)
    if places.checkpoints is not None:
        places.checkpoints.made_of = worlds.made_of
    replay = Replay(
        capacity=min(train.replay_capacity, _slots_needed(spec, envs.episode_length)),
        observation_dim=envs.observation_dim,
        action_dim=envs.action_dim,
        horizon=spec.agent.horizon,
        device=agent.device,
        seed=train.seed,
        host_only=train.replay_device == "host",
        td_steps=spec.agent.td_steps,
        draw=train.replay_draw,
        past_ends=train.past_ends,
        plans=spec.agent.policy_prior != "value",
    )
    return Trainer(
        agent=agent,
        envs=envs,
        replay=replay,
        config=train,
        evaluation=spec.eval,
        evaluator=None if spec.eval is None else Evaluator(worlds.cases(spec.eval), seed=train.seed),
        curriculum=Curriculum(worlds.phases, worlds.pool),
        sink=sink,
        checkpoints=places.checkpoints,
        videos=_videos(spec, places, on_event),
        stop=stop,
        observe=observe,
        on_event=on_event,
        attempt=attempt,
    )


def _videos(spec: Spec, places: Places, on_event: EventCallback | None) -> VideoFolder | None:
    """Where the videos go; None where none are wanted, or, with a warning, where filming would end the training."""
    if places.videos is None or spec.eval is None or spec.eval.video_every is None:
        return None
    if problem := filming_problem(spec):
        if on_event is not None:
            on_event("warning", {"message": problem})
        return None
    return VideoFolder(places.videos, spec.eval.video_every, places.guard)


def _slots_needed(spec: Spec, episode_length: int) -> int:
    """Slots that can ever be filled: an episode takes one more than its steps, and may be as short as one step."""
    return max(2 * spec.train.steps, episode_length + 1)


def hardware(trainer: Trainer) -> Hardware:
    """What this trainer runs on."""
    device = trainer.agent.device
    return Hardware(
        device=str(device),
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        threads=torch.get_num_threads(),
        torch=str(torch.__version__),
        kernels=str(trainer.agent.kernels),
        replay=trainer.replay.placement.reason,
        precision=str(trainer.agent.precision),
    )
