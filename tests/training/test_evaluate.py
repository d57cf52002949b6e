from __future__ import annotations

import numpy as np
import pytest
from training_fixtures import spec

from memory_sink import MemorySink
from tdmpc_lab.config.schema import EnvConfig
from tdmpc_lab.envs import evaluation_seeds, make_env
from tdmpc_lab.training.build import build_trainer
from tdmpc_lab.training.evaluate import Case, EpisodeResult, Evaluation, Evaluator


def test_row_by_hand():
    row = Evaluation((EpisodeResult(1, -2.0, 10), EpisodeResult(2, 4.0, 20))).row()
    assert row == {
        "return_mean": 1.0,
        "return_std": 3.0,
        "return_min": -2.0,
        "return_max": 4.0,
        "length_mean": 15.0,
        "episodes": 2,
    }


def test_same_agent_same_result_and_its_own_seeds():
    trainer = build_trainer(spec("Countdown-v0"), sink=MemorySink())
    seeds = tuple(evaluation_seeds(1, 20))
    evaluator = Evaluator([Case(lambda film: make_env(EnvConfig(id="Countdown-v0")), seeds)], seed=1)
    first, second = evaluator.run(trainer.agent), evaluator.run(trainer.agent)
    assert first == second
    assert [e.seed for e in first.episodes] == list(evaluation_seeds(1, 20))
    assert len({e.length for e in first.episodes}) > 1  # episodes of different lengths end apart
    assert all(1 <= e.length <= 10 for e in first.episodes)


def test_progress_is_told_before_the_first_episode_and_whenever_one_ends():
    trainer = build_trainer(spec("Countdown-v0"), sink=MemorySink())
    seeds = tuple(evaluation_seeds(1, 12))
    cases = [Case(lambda film: make_env(EnvConfig(id="Countdown-v0")), seeds)]
    told = []
    Evaluator(cases, seed=1, side_by_side=6).run(trainer.agent, progress=lambda done, of: told.append((done, of)))
    done = [count for count, _ in told]
    assert done[0] == 0 and done[-1] == 12 and done == sorted(set(done))
    assert len(done) > 4  # more often than after each of the two batches: their episodes differ in length
    assert {of for _, of in told} == {12}


def test_side_by_side_equals_one_at_a_time_for_an_agent_without_noise():
    """Returns of episodes run in a batch are those of the same actions run alone."""
    make = lambda film=False: make_env(EnvConfig(id="Pendulum-v1", max_episode_steps=30))  # noqa: E731
    trainer = build_trainer(spec(), sink=MemorySink())
    agent = trainer.agent
    agent.act = lambda obs, state, explore, envs: agent.act_prior(obs)
    together = Evaluator([Case(make, tuple(evaluation_seeds(3, 5)))], seed=3).run(agent)
    for result in together.episodes:
        env = make()
        obs, total, done = env.reset(result.seed), 0.0, False
        while not done:
            step = env.step(agent.act_prior(obs[np.newaxis])[0])
            obs, total, done = step.obs, total + step.reward, step.terminated or step.truncated
        assert result.total == pytest.approx(total, rel=1e-5)


def test_an_environment_without_pictures_is_evaluated_all_the_same():
    """Countdown knows no render mode: there is no film, and the evaluation is the same."""
    trainer = build_trainer(spec("Countdown-v0", evaluate=True), sink=MemorySink())
    filmed = trainer.evaluator.run(trainer.agent, film=True)
    assert filmed.film is None
    assert filmed == trainer.evaluator.run(trainer.agent)
