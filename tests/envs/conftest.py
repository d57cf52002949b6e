"""Registering environments for one test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import pytest

from tdmpc_lab.config.schema import EnvConfig
from tdmpc_lab.envs import make

Register = Callable[..., EnvConfig]


@pytest.fixture(autouse=True)
def registry() -> Iterator[dict[str, Any]]:
    """gymnasium's registry, as it was afterwards; and no warning counts as shown already."""
    before = dict(gymnasium.registry)
    make._shown.clear()
    yield gymnasium.registry
    gymnasium.registry.clear()
    gymnasium.registry.update(before)


@pytest.fixture
def register() -> Register:
    """Register a class as `Sample-v0`, with a limit of 20 steps unless said otherwise; returns its config."""

    def registered(env: type, *, limit: int | None = 20, **options: Any) -> EnvConfig:
        gymnasium.register("Sample-v0", entry_point=env, max_episode_steps=limit)
        return EnvConfig(id="Sample-v0", options=options)

    return registered
