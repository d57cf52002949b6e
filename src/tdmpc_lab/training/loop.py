"""The training loop: seed steps at random, then plan, learn, evaluate and save until the steps are used up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tdmpc_lab.agent import Agent, Replay
from tdmpc_lab.agent.diagnostics import diagnose
from tdmpc_lab.agent.replay import FloatArray
from tdmpc_lab.config.phases import Phase
from tdmpc_lab.config.schema import EvalConfig, TrainConfig
from tdmpc_lab.envs import EnvGroup, EpisodeSetting
from tdmpc_lab.errors import CheckpointError, NonFiniteError, TrainingError
from tdmpc_lab.training.checkpoints import CheckpointStore, arrays_to_tensors, reading_state, tensors_to_arrays
from tdmpc_lab.training.curriculum import Curriculum
from tdmpc_lab.training.evaluate import Evaluator, Film
from tdmpc_lab.training.metrics import LossMeter, MetricSink, Row
from tdmpc_lab.training.recorder import EpisodeRecorder, StepPlan
from tdmpc_lab.training.saving import Saver
from tdmpc_lab.training.stop import StopFlag
from tdmpc_lab.training.video import VideoFolder

SEED_STEPS_MIN = 1000
SEED_EPISODES = 5
HOPELESS_STEPS = 10_000  # without a single episode to learn from

EventCallback = Callable[[str, Mapping[str, Any]], None]
RowObserver = Callable[[Row], None]


def seed_steps_for(config: TrainConfig, episode_length: int) -> int:
    """Random steps before learning: as set, else max(1000, 5 episodes), never all of the training."""
    if config.seed_steps is not None:
        return config.seed_steps
    return min(max(SEED_STEPS_MIN, SEED_EPISODES * episode_length), config.steps)


@dataclass(frozen=True)
class TrainResult:
    """How training ended."""

    step: int
    stopped: str | None  # the stop flag's reason, None when all steps were done


class Trainer:
    """Trains one agent. Everything that changes from step to step is in `state_dict`, so a run can be resumed.

    Args:
        agent, envs, replay: built for the same spaces and device.
        config: the loop's own section of the spec.
        evaluation: when to evaluate; None for never. `evaluator` plays the episodes.
        curriculum: the phases with their rewards; None for rewards as they are.
        sink: takes metric rows. `observe` sees each row too (progress display).
        checkpoints: None keeps nothing on disk.
        videos: where videos of evaluations go; None for none.
        stop: asked at every step and update.
        on_event: told of checkpoints, resumption and dropped episodes: (kind, fields).
        attempt: written into every row.
    """

    def __init__(
        self,
        *,
        agent: Agent,
        envs: EnvGroup,
        replay: Replay,
        config: TrainConfig,
        sink: MetricSink,
        evaluation: EvalConfig | None = None,
        evaluator: Evaluator | None = None,
        curriculum: Curriculum | None = None,
        checkpoints: CheckpointStore | None = None,
        videos: VideoFolder | None = None,
        stop: StopFlag | None = None,
        observe: RowObserver | None = None,
        on_event: EventCallback | None = None,
        attempt: int = 1,
    ) -> None:
        self.agent, self.envs, self.replay, self.config = agent, envs, replay, config
        self.sink, self.evaluation, self.evaluator = sink, evaluation, evaluator
        self.checkpoints, self.videos, self.attempt = checkpoints, videos, attempt
        self.curriculum = Curriculum() if curriculum is None else curriculum
        self.stop = StopFlag() if stop is None else stop
        self._observe = observe
        self._on_event = on_event
        self.seed_steps = seed_steps_for(config, envs.episode_length)
        self.step = 0
        self.updates = 0
        self._settled = 0  # the step up to which updates, logging, evaluation and checkpoint are done
        self._pending: list[str] = []  # what is still to be done at that step, see `_settle`
        self._base: tuple[int, int] | None = None  # (step, updates by then) that later updates are counted from
        self._warned = False
        self._wall_before = 0.0  # seconds trained by earlier attempts
        self._started = time.monotonic()
        self._meter = LossMeter()
        self._random = torch.Generator().manual_seed(config.seed)
        self._plan = agent.plan_state(config.envs, seed=config.seed)
        self._recorders: list[EpisodeRecorder] = []
        self._observations: FloatArray = np.zeros((0, 0), dtype=np.float32)
        self._saver = Saver(checkpoints, sink, self.curriculum, self._event)

    def run(self) -> TrainResult:
        """Train until all steps are done or the stop flag is set; a checkpoint is written either way.

        Raises:
            NonFiniteError: NaN or Inf in a loss or a plan; nothing is saved after that.
            TrainingError: the environment failed, or nothing could be learned.
            OSError: a checkpoint, a video or a row could not be written.
        """
        with self._saver.settled():
            return self._run()

    def _run(self) -> TrainResult:
        self._started = time.monotonic()
        self._rate_mark = (self._started, self.step)
        if not self._recorders:
            if len(self.curriculum.phases) > 1:
                self._tell_phase(self.curriculum.phases[0])
            self._observations = self.envs.reset_all()
            self._recorders = [EpisodeRecorder(o.copy()) for o in self._observations]  # the array is written over
        while not self.stop and (self._settled < self.config.steps or self._pending):
            if self._settled == self.step and not self._pending:
                self._collect()
            self._learn()  # nothing, where a stop came after the updates of this step
            if not self.stop:
                self._settle()
        if self.stop:
            self._save()
        elif self.updates == 0:
            raise TrainingError(
                f"no update was made in {self.step:,} steps: no episode was as long as the horizon "
                f"({self.replay.horizon}), or all steps were seed steps ({self.seed_steps:,})"
            )
        return TrainResult(self.step, self.stop.reason)

    def _collect(self) -> None:
        """One step in every environment; finished episodes enter the replay."""
        count = min(self.config.envs, self.config.steps - self.step)
        actions, plans = self._actions(count)
        results = self.envs.step(actions)
        self.step += count
        finished = []
        for i, (action, result, plan) in enumerate(zip(actions, results, plans, strict=True)):
            recorder = self._recorders[i]
            recorder.add(action, result, plan)
            self._observations[i] = result.obs
            if recorder.done:
                self._finish_episode(i, recorder)
                finished.append(i)
        self._enter_phases()
        for i in finished:
            self._start_episode(i)
        if self._base is None and self.step >= self.seed_steps:
            self._base = (self.step, max(self.seed_steps, 1))  # as many updates as there were seed steps
            self._event("warm_up", {"step": self.step, "updates": self._due()})

    def _finish_episode(self, i: int, recorder: EpisodeRecorder) -> None:
        """Into the replay with the rewards of its phase, and into the metrics."""
        setting, before = self.envs.episode_setting(i), self.replay.episodes_added
        episode, row = self.curriculum.finish(recorder, setting, before)
        self.replay.add(episode)
        self._log("train", {"env": i, **row})

    def _enter_phases(self) -> None:
        for phase in self.curriculum.enter(self.step, self.replay.episodes_added):
            self._tell_phase(phase)
        self.envs.setting = self.curriculum.setting

    def _tell_phase(self, phase: Phase) -> None:
        self._log("train", {"phase": phase.number})
        self._event("phase", {"phase": phase.number, "step": self.step, "changes": list(phase.changes)})

    def _due(self) -> int:
        """Updates still to be made up to this step; whole ones, counted so that fractions never drift."""
        if self._base is None:
            return 0
        step, updates = self._base
        return updates + math.floor(self.config.updates_per_step * (self.step - step) + 1e-9) - self.updates

    def _actions(self, count: int) -> tuple[FloatArray, Sequence[StepPlan | None]]:
        """Actions (count, A) for the first `count` environments: random in a fresh agent's seed steps, else planned.

        Also what each was drawn from, where it was planned and the replay keeps that.
        """
        if self.step < self.seed_steps and self.config.start_from is None:
            drawn = torch.rand(count, self.agent.model.action_dim, generator=self._random)
            return (2 * drawn - 1).numpy(), [None] * count
        actions = self.agent.act(self._observations[:count], self._plan, explore=True)
        if not np.isfinite(actions).all():
            self._meter.check(self._saver.last)  # names the loss if one went wrong before
            raise NonFiniteError(
                f"NaN or Inf in the planned action at step {self.step:,}; last good checkpoint: {self._saver.last()}"
            )
        if not self.replay.keeps_plans:
            return actions, [None] * count
        mean, std = (x[:count].half().cpu().numpy() for x in (self._plan.mean[:, 0], self._plan.std))
        return actions, [StepPlan(*plan) for plan in zip(mean, std, strict=True)]

    def _start_episode(self, i: int) -> None:
        self._observations[i] = self.envs.reset_one(i)
        self._recorders[i] = EpisodeRecorder(self._observations[i].copy())
        self._plan.start_episode(i)

    def _learn(self) -> None:
        """The updates that are due, as far as the replay has sub-sequences to learn from."""
        while self._due() > 0 and not self.stop:
            if self.replay.sequences == 0:  # no episode of the horizon's length yet: the updates stay due
                self._warn_nothing_to_learn()
                return
            losses = self.agent.update(self.replay.sample(self.config.batch_size))
            self._meter.add(losses, self.step)
            self.updates += 1
            if self.updates == self.seed_steps:  # the warm-up is over: its time belongs to no step
                self._rate_mark = (time.monotonic(), self.step)

    def _warn_nothing_to_learn(self) -> None:
        """Say it once; give up when it has gone on for long. Raises TrainingError."""
        started = 0 if self._base is None else self._base[0]
        if self.replay.episodes_too_short and self.step - started >= max(HOPELESS_STEPS, 10 * self.seed_steps):
            raise TrainingError(
                f"nothing could be learned by step {self.step:,}: none of {self.replay.episodes_added:,} episodes was "
                f"as long as the horizon ({self.replay.horizon} steps); lower agent.horizon"
            )
        if self.replay.episodes_too_short and not self._warned:
            self._warned = True
            message = (
                f"no episode has been as long as the horizon ({self.replay.horizon} steps) yet, the longest sub-"
                "sequence learned from: nothing is learned until one is"
            )
            self._event("warning", {"message": message, "step": self.step})

    def _settle(self) -> None:
        """What is due every so many steps, and at the end: losses, checkpoint, evaluation.

        What a stop keeps from being done stays in `_pending` and is done after resuming. The checkpoint comes before
        the evaluation, which can take long.
        """
        if self._settled < self.step:
            self._pending = self._due_at(self._settled, self.step)
            self._settled = self.step
        self._saver.poll()
        while self._pending and not self.stop:
            task = self._pending.pop(0)
            if task == "losses":
                self._log_losses()
            elif task == "copy":
                self._meter.check(self._saver.last)
                number = self.curriculum.copy(self.agent, self.step)
                self._event("self_play_copy", {"copy": number, "step": self.step})
            elif task == "checkpoint":
                self._save()
            elif task == "diagnostics":
                self._log_diagnostics()
            elif not self._evaluate():
                self._pending.insert(0, task)

    def _due_at(self, before: int, step: int) -> list[str]:
        """What to do after the steps (before, step]."""
        saving = self.config.checkpoint_every
        every = {"losses": self.config.log_every, "checkpoint": saving, "diagnostics": saving}
        if self.evaluation is not None:
            every |= {"diagnostics": self.evaluation.every, "evaluation": self.evaluation.every}
        last = step >= self.config.steps
        due = [task for task, n in every.items() if last or crossed(before, step, n)]
        return ["copy", *due] if self.curriculum.copy_due(before, step) else due

    def _log_losses(self) -> None:
        losses = self._meter.read(self._saver.last)
        nan_values = int(self._plan.nan_values)
        if nan_values:
            raise NonFiniteError(
                f"{nan_values} value estimates of the planner were NaN up to step {self.step:,}; last good "
                f"checkpoint: {self._saver.last()}"
            )
        self._log(
            "train",
            {
                **losses,
                "updates": self.updates,
                "replay/steps": len(self.replay),
                "replay/episodes": self.replay.episodes,
                "replay/too_short": self.replay.episodes_too_short,
                **self._rate(),
                **self._saver.held(),
            },
        )

    def _rate(self) -> dict[str, float]:
        """Steps per second since the last row. Nothing before learning began: random steps are no measure of it."""
        now = time.monotonic()
        since, step = self._rate_mark
        self._rate_mark = (now, self.step)
        if self._base is None or self.step == step:
            return {}
        return {"steps_per_s": (self.step - step) / max(now - since, 1e-9)}

    def _log_diagnostics(self) -> None:
        if self.updates == 0 and self.replay.sequences > 0:  # random steps: nothing has been learned yet
            return
        self._meter.check(self._saver.last)
        if figures := diagnose(self.agent, self.replay, seed=self.config.seed):
            self._log("train", figures)

    def _evaluate(self) -> bool:
        """Evaluate and log it; False when a stop came in between."""
        assert self.evaluator is not None
        paused = time.monotonic()
        self._meter.check(self._saver.last)
        film = self.videos is not None and self.videos.due(self.step)
        evaluation = self.evaluator.run(self.agent, self.stop, film=film)
        if evaluation is None or (alone := self.evaluator.run(self.agent, self.stop, mode="policy")) is None:
            return False
        self._log("eval", evaluation.row() | alone.policy_row())
        if film:
            self._save_video(evaluation.film)
        since, step = self._rate_mark  # the time of evaluating is not training time
        self._rate_mark = (since + time.monotonic() - paused, step)
        return True

    def _save_video(self, film: Film | None) -> None:
        """Write it; a video that can't be made costs a warning, never the training."""
        assert self.videos is not None
        try:
            if film is None:
                raise TrainingError("the environment makes no pictures (render mode rgb_array)")
            path = self.videos.save(self.step, film.frames, film.fps)
        except (OSError, TrainingError) as error:
            self._event("warning", {"message": f"no video: {error}", "step": self.step})
        else:
            self._event("video", {"step": self.step, "file": path.name, "of": film.of})

    def _save(self) -> None:
        self._meter.check(self._saver.last)
        self._saver.begin(self.step, self._small_state, self.replay, self._running_settings())

    def _running_settings(self) -> list[EpisodeSetting]:
        return [self.envs.episode_setting(i) for i in range(self.config.envs)]

    def _log(self, split: str, values: Mapping[str, Any]) -> None:
        row = {
            "step": self.step,
            "split": split,
            "attempt": self.attempt,
            "wall_s": round(self._wall(), 3),
            **values,
        }
        self.sink.log(row)
        if self._observe is not None:
            self._observe(row)

    def _wall(self) -> float:
        """Seconds trained so far, over all attempts."""
        return self._wall_before + time.monotonic() - self._started

    def _event(self, kind: str, fields: Mapping[str, Any]) -> None:
        if self._on_event is not None:
            self._on_event(kind, fields)

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to continue as if it had never stopped."""
        return {**self._small_state(), "replay": self.replay.state_dict()}

    def _small_state(self) -> dict[str, Any]:
        """`state_dict` without the replay."""
        return {
            "counters": {
                "settled": self._settled,
                "pending": list(self._pending),
                "updates": self.updates,
                "base": None if self._base is None else list(self._base),
                "updates_per_step": self.config.updates_per_step,
                "wall_s": self._wall(),
                "metrics_mark": self.sink.mark(),
                "filmed": 0 if self.videos is None else self.videos.last,
            },
            "agent": self.agent.state_dict(),
            "curriculum": self.curriculum.state_dict(self._running_settings()),
            "envs": arrays_to_tensors(self.envs.state_dict()),
            "recorders": [r.state_dict() for r in self._recorders],
            "plan": {
                "mean": self._plan.mean.cpu(),
                "generator": self._plan.generator.get_state(),
                "nan_values": int(self._plan.nan_values),
            },
            "random": self._random.get_state(),
            "losses": self._meter.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint: metrics after it are dropped, running episodes are played again up to it.

        An episode that does not come out the same when played again is dropped, with an event.

        Raises:
            CheckpointError: made with another number of environments or other sizes, or no state of a training.
        """
        with reading_state():
            self._load_state(state)
        self._event("resumed", {"step": self.step, "attempt": self.attempt, "wall_s": self._wall_before})

    def _load_state(self, state: dict[str, Any]) -> None:
        if len(state["recorders"]) != self.config.envs:
            raise CheckpointError(
                f"the checkpoint was made with {len(state['recorders'])} environments, train.envs is {self.config.envs}"
            )
        counters = state["counters"]
        self.agent.load_state_dict(state["agent"])
        self.replay.load_state_dict(state["replay"])
        self.step, self.updates = int(state["step"]), int(counters["updates"])
        self._settled, self._pending = int(counters["settled"]), list(counters["pending"])
        self._base = None if counters["base"] is None else (int(counters["base"][0]), int(counters["base"][1]))
        if self._base is not None and counters["updates_per_step"] != self.config.updates_per_step:
            self._base = (self.step, self.updates)  # another rate holds from here on, not for what lies behind
        self._wall_before = float(counters["wall_s"])
        if self.videos is not None:
            self.videos.last = int(counters["filmed"])
        self.curriculum.load_state_dict(state["curriculum"])
        self.envs.setting = self.curriculum.setting
        steps = min(self._plan.mean.shape[1], state["plan"]["mean"].shape[1])  # the horizon may be another now
        self._plan.mean[:, :steps] = state["plan"]["mean"][:, :steps]
        self._plan.generator.set_state(state["plan"]["generator"])
        self._plan.nan_values.fill_(state["plan"]["nan_values"])
        self._random.set_state(state["random"])
        self._meter.load_state_dict(state["losses"], self.agent.device)
        self._restore_episodes(state)
        self.sink.rewind(int(counters["metrics_mark"]))

    def _restore_episodes(self, state: dict[str, Any]) -> None:
        changed = self.envs.load_state_dict(tensors_to_arrays(state["envs"]))
        self._recorders = [EpisodeRecorder.from_state(s) for s in state["recorders"]]
        self._observations = np.stack([r.last_observation for r in self._recorders])
        for i in changed:
            self._event("episode_dropped", {"env": i, "step": self.step})
            self._observations[i] = self.envs.observations[i]  # the group has started the next one
            self._recorders[i] = EpisodeRecorder(self._observations[i].copy())
            self._plan.start_episode(i)


def crossed(before: int, after: int, every: int) -> bool:
    """A multiple of `every` lies in (before, after]."""
    return after // every > before // every
