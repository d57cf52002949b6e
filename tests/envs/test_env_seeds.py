from __future__ import annotations

from tdmpc_lab.envs import evaluation_seeds, training_seed


def test_seeds_are_a_pure_function_of_their_place() -> None:
    assert training_seed(1, 2, 3) == training_seed(1, 2, 3)
    assert evaluation_seeds(1, 4) == evaluation_seeds(1, 4)


def test_seeds_are_fixed_for_good() -> None:
    """A change here changes every experiment that anyone repeats."""
    assert [training_seed(1, 0, 0), training_seed(1, 1, 0), training_seed(1, 0, 1)] == [
        917752062,
        594516694,
        750514628,
    ]
    assert evaluation_seeds(1, 3) == [1513856455, 265477847, 1087636435]


def test_every_place_has_a_seed_of_its_own() -> None:
    places = [(seed, env, episode) for seed in range(3) for env in range(8) for episode in range(100)]
    seeds = {training_seed(*place) for place in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_longer_evaluation_starts_with_the_episodes_of_a_shorter_one() -> None:
    assert evaluation_seeds(5, 20)[:5] == evaluation_seeds(5, 5)
    assert len(set(evaluation_seeds(5, 20))) == 20
    assert evaluation_seeds(5, 5) != evaluation_seeds(6, 5)


def test_no_evaluation_seed_can_be_a_training_seed() -> None:
    assert all(seed % 2 == 1 and 0 < seed < 2**31 for seed in evaluation_seeds(3, 500))
    assert all(training_seed(3, env, episode) % 2 == 0 for env in range(5) for episode in range(100))
