"""One attempt of a job in a process of its own to which something happens; MLflow is away throughout."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from fault_fixtures import kill_at_file_change

from tdmpc_lab.agent import Agent
from tdmpc_lab.app.run import watchdog, worker
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.jobs.events import EventLog
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, prepare_job
from tdmpc_lab.tracking.mirror import MirrorReport

SPEC = """\
about: something goes wrong
env: {id: "job_faults:Faulty-v0"}
agent: {latent_dim: 16, hidden_dim: 16, hidden_layers: 1, termination_dim: 8, horizon: 2, q_heads: 2, bins: 21}
planner: {samples: 8, iterations: 1, elites: 4, policy_trajectories: 2}
train: {steps: 120, seed_steps: 40, batch_size: 4, log_every: 10, threads: 1, device: cpu, checkpoint_every: 30}
eval: {every: 60, episodes: 1}
"""
LOCAL = "local-20260203-091422-123"


class Faulty(gymnasium.Env):
    """An environment that does what `fault` says at its `at`-th step in this process, unless there is none."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    fault: Callable[[], None] | None = None
    at = 75
    steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        Faulty.steps += 1
        if Faulty.steps == Faulty.at and Faulty.fault is not None:
            Faulty.fault()
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), 0.5, False, False, {}


gymnasium.register("Faulty-v0", Faulty, max_episode_steps=15)


class NoMirror:
    """In the place of MLflow, which takes seconds to say that it is away."""

    def close(self, *_arguments: Any, **_named: Any) -> MirrorReport:
        return MirrorReport(0, "MLflow is away", complete=False)

    def set_description(self, text: str) -> None:
        """Told to nobody."""

    def abandon(self) -> None:
        """Nothing to leave."""


def make_job(root: Path, *overrides: str) -> JobPaths:
    """A job of this machine, recorded and not begun."""
    path = root / "experiments" / "faulty.yaml"
    path.write_text(SPEC)
    found = load_spec(path, overrides)

    def record(job_id: str) -> JobRecord:
        return JobRecord(
            id=job_id,
            experiment="faulty",
            group="0123456789",
            seed=1,
            cluster="local",
            spec_file="experiments/faulty.yaml",
            submitted_at="2026-02-03T09:14:22+00:00",
            steps_total=found.spec.train.steps,
        )

    return prepare_job(Project(root), LOCAL, found.text, dump_yaml(found.spec), record)


def attempt(root: Path, fault: str = "", number: int = 0) -> None:
    """Run the job as its launcher would, once, with one of the functions below happening to it."""
    os.chdir(root)
    log = os.open(root / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    worker.start_mirror = lambda *_arguments, **_named: NoMirror()
    if fault:
        globals()[fault](number)
    worker.run_job(str(root), LOCAL)


def killed(number: int) -> None:
    kill_at_file_change(number)


def disk_full(number: int) -> None:
    """No file grows beyond `number` bytes from the middle of the training on."""

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.RLIM_INFINITY))

    Faulty.fault = fill


def memory_out(_number: int) -> None:
    """The process may take no more memory than it has, and something asks for much."""

    def fill() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**20, resource.RLIM_INFINITY))

    original = Agent.update

    def update(self: Agent, batch: Any) -> Any:
        if Faulty.steps >= Faulty.at:
            batch.observations.new_empty(2**28)
        return original(self, batch)

    Faulty.fault, Agent.update = fill, update  # type: ignore[method-assign]


def not_a_number(_number: int) -> None:
    original = Agent.update

    def update(self: Agent, batch: Any) -> Any:
        losses = original(self, batch)
        return {k: v * float("nan") for k, v in losses.items()} if Faulty.steps >= Faulty.at else losses

    Agent.update = update  # type: ignore[method-assign]


def raises(_number: int) -> None:
    def fail() -> None:
        raise ValueError("the puck left the universe")

    Faulty.fault = fail


def hangs(_number: int) -> None:
    Faulty.fault = lambda: time.sleep(1000)
    watchdog.BEAT_S = 0.1


def hangs_deaf(_number: int) -> None:
    """As a library that catches everything."""

    def hang() -> None:
        while True:
            try:
                time.sleep(1)
            except Exception:  # noqa: BLE001 - this is the fault
                continue

    Faulty.fault = hang
    watchdog.BEAT_S, watchdog.GRACE_S = 0.1, 0.5


def clock_backwards(_number: int) -> None:
    """Every look at the clock of the events is an hour before the last one."""
    now = [datetime.now().astimezone()]

    def clock() -> datetime:
        now[0] -= timedelta(hours=1)
        return now[0]

    assert EventLog.__init__.__kwdefaults__ is not None
    EventLog.__init__.__kwdefaults__["clock"] = clock


def log_full(_number: int) -> None:
    """Standard output and error are on a volume that takes nothing."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    os.dup2(full, 2)


def not_root(_number: int) -> None:
    """As another user, who may read the job's folder only."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def slow(_number: int) -> None:
    """So that two attempts meet."""
    original = Faulty.step

    def step(self: Faulty, action: Any) -> Any:
        time.sleep(0.02)
        return original(self, action)

    Faulty.step = step  # type: ignore[method-assign]


def stopped_when_it_begins(_number: int) -> None:
    """Asked to stop in the midst of the training."""
    Faulty.fault = lambda: os.kill(os.getpid(), signal.SIGTERM)


sys.modules.setdefault("job_faults", sys.modules[__name__])
