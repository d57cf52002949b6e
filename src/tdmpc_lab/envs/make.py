"""`make_env`: from the `env` section of a spec to a `ControlEnv`, or an error that says what to change.

What an environment returns is checked first, and what is wrong is said in the environment's terms. `look_at` plays in
it for a moment: how long its episodes are, how large its rewards.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import inspect
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Dict, Tuple

from tdmpc_lab.config.schema import EnvConfig
from tdmpc_lab.envs.control import ControlEnv, GymnasiumEnv, ReturnError, close_quietly
from tdmpc_lab.envs.hockey.opponents import FindOpponent
from tdmpc_lab.envs.spaces import action_scale, observation_dim
from tdmpc_lab.envs.undisturbed import undisturbed
from tdmpc_lab.errors import EnvironmentSpecError

_LOG = logging.getLogger(__name__)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_GYMNASIUM_PREFIX = re.compile(r"^(WARN|ERROR): ")
_QUIET_CATEGORIES = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
_TAKEN_BY_GYMNASIUM = {
    "max_episode_steps": "set env.max_episode_steps instead",
    "id": "set env.id instead",
    "disable_env_checker": "it is always off here, observations and rewards are checked in every step",
}
_OUR_IDS = {
    "hockey": "tdmpc_lab.envs.hockey:tdmpc_lab/Hockey-v0",
    "hockey-original": "tdmpc_lab.envs.hockey:tdmpc_lab/HockeyOriginal-v0",
}
_DMC = "dmc:"  # and a task of the DeepMind Control Suite
_OWN_KEYS = ("opponent", "time_limit")  # of the section `env`, beside options: laser hockey's own
_shown: set[str] = set()  # warnings that the user has had already


def make_env(
    config: EnvConfig,
    *,
    find_opponent: FindOpponent | None = None,
    render_mode: str | None = None,
    **constructor: Any,
) -> ControlEnv:
    """Make the environment of a spec.

    `find_opponent` makes the opponents that are no bots: it gets a name of `env.opponent` and returns None for one
    that it doesn't know. `constructor` are more keyword arguments for the environment, beside `env.options`.

    Raises EnvironmentSpecError when there is no such id, when its module or its constructor fails, when the
    spaces are not supported, and when neither the environment nor the spec limits an episode's length.
    Warnings that come up on the way never stop it; each is logged once per process.
    """
    if render_mode is not None:
        constructor["render_mode"] = render_mode

    def build() -> gymnasium.Env[Any, Any]:
        with _warnings_logged_once():
            return _build(config, {**_own_options(config, find_opponent), **constructor})

    with _warnings_logged_once():
        env = build()
        try:
            return GymnasiumEnv(
                config.id,
                build,
                env,
                observation_dim=observation_dim(env.observation_space, config.id),
                action_scale=action_scale(
                    env.action_space, config.id, has_continuous_option="continuous" in _parameters(config.id)
                ),
                episode_length=_episode_length(env, config),
            )
        except Exception:
            close_quietly(env, config.id)
            raise


def has_opponents(env_id: str) -> bool:
    """Whether this is a view of laser hockey, a game against somebody. Raises EnvironmentSpecError as `make_env`."""
    _import_module_of(env_id)
    return bool(getattr(_creator(env_id), "has_opponents", False))


def _own_options(config: EnvConfig, find_opponent: FindOpponent | None) -> dict[str, Any]:
    """The keys of `env` that only laser hockey knows, as its constructor takes them; those that are not set left out.

    Raises EnvironmentSpecError where the environment has no such thing, and for an opponent that is not known.
    """
    given = {name: value for name in (*_OWN_KEYS, "self_play") if (value := getattr(config, name)) is not None}
    if not given:
        return {}
    _import_module_of(config.id)
    if _creator(config.id) is None:
        return {}  # making it tells what is wrong with the id
    if not has_opponents(config.id):
        name = next(iter(given))
        raise EnvironmentSpecError(
            f"env.{name} is for laser hockey (env.id: hockey), and '{config.id}' is another environment: leave it out",
            key=f"env.{name}",
        )
    given.pop("self_play", None)  # of the training, not of the environment
    if "opponent" in given:
        from tdmpc_lab.envs.hockey import make_opponent

        spec = given["opponent"]
        try:
            given["opponent"] = make_opponent(str(spec) if isinstance(spec, int) else spec, find_opponent)
        except EnvironmentSpecError as error:
            raise EnvironmentSpecError(f"env.{error}", key="env.opponent") from error
    return given


def _build(config: EnvConfig, constructor: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """The gymnasium environment with its time limit; every failure as an EnvironmentSpecError."""
    name = _import_module_of(config.id)
    taken = _TAKEN_BY_GYMNASIUM | {key: f"set env.{key} instead" for key in _OWN_KEYS if config.id in _OUR_IDS}
    if config.id.startswith(_DMC):
        taken |= {"task": "it is part of the id"}
        constructor = {**constructor, "task": config.id.removeprefix(_DMC)}
    for option, remedy in taken.items():
        if option in config.options:
            text = f"env.options.{option} can't be passed to '{config.id}': {remedy}"
            raise EnvironmentSpecError(text, key=f"env.options.{option}")

    import gymnasium

    try:
        with undisturbed():
            made = gymnasium.make(
                name,
                max_episode_steps=config.max_episode_steps,
                disable_env_checker=True,  # it looks at the first step only, GymnasiumEnv at every one
                **copy.deepcopy({**config.options, **constructor}),
            )
        return checked(made)
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv) as error:
        raise _unknown_id(config.id, name) from error
    except EnvironmentSpecError:  # an environment of ours says itself what to change
        raise
    except gymnasium.error.DependencyNotInstalled as error:
        raise EnvironmentSpecError(
            f"env.id '{config.id}' needs a package that is not installed: {_last_line(error)}",
            key="env.id",
        ) from error
    except Exception as error:  # a constructor may raise anything
        if name not in gymnasium.registry and isinstance(error, gymnasium.error.Error):
            raise _unknown_id(config.id, name) from error
        raise _constructor_failed(config, error) from error


def _import_module_of(env_id: str) -> str:
    """Import the module of `module:id`, which registers the environment; returns the id without it."""
    module, colon, name = _full_id(env_id).rpartition(":")
    if not colon:
        return env_id
    if not name or not all(part.isidentifier() for part in module.split(".")):
        raise EnvironmentSpecError(
            f"env.id '{env_id}' is not an environment id: write the id as it is registered with gymnasium "
            "('Pendulum-v1'), or 'module:id' to import a module that registers it",
            key="env.id",
        )
    try:
        with undisturbed():
            importlib.import_module(module)
    except Exception as error:  # an imported module may raise anything
        missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        remedy = (
            "Install it into this Python, or put the folder that holds it on PYTHONPATH"
            if missing
            else f"It is there, but can't be imported: try `python -c 'import {module}'`"
        )
        raise EnvironmentSpecError(
            f"module '{module}' of env.id '{env_id}' must be importable: {type(error).__name__}: "
            f"{_last_line(error)}. {remedy}",
            key="env.id",
            said=(
                f"module '{module}' of '{env_id}' must be importable: {type(error).__name__}: "
                f"{_last_line(error)}. {remedy}"
            ),
        ) from error
    return name


def _full_id(env_id: str) -> str:
    """`module:id` of our own environments, any other id as it is."""
    return "tdmpc_lab.envs.dmc:tdmpc_lab/DmControl-v0" if env_id.startswith(_DMC) else _OUR_IDS.get(env_id, env_id)


def _unknown_id(env_id: str, name: str) -> EnvironmentSpecError:
    import gymnasium

    by_folded = {known.casefold(): known for known in (*gymnasium.registry, *_OUR_IDS)}
    near = [by_folded[key] for key in difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.7)]
    if near:
        hint = "did you mean " + " or ".join(f"'{known}'" for known in near) + "?"
    else:
        hint = "`python -c 'import gymnasium; gymnasium.pprint_registry()'` lists the ids it knows"
        if ":" not in env_id:
            hint += f"; where a package registers it, write 'package:{name}'"
    return EnvironmentSpecError(f"env.id '{env_id}' is not known to gymnasium: {hint}", key="env.id")


def _constructor_failed(config: EnvConfig, error: Exception) -> EnvironmentSpecError:
    parameters = _parameters(config.id)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = [name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
    unknown = [option for option in config.options if option not in named and not takes_any]
    if isinstance(error, TypeError) and unknown and named:
        near = difflib.get_close_matches(unknown[0], named, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        text = (
            f"'{config.id}' has {', '.join(unknown)}, which its constructor does not take{hint}. It takes: "
            f"{', '.join(named)}"
        )
        said = f"what is given for {text}"
        return EnvironmentSpecError(f"env.options of {text}", key="env.options", said=said, option=unknown[0])
    options = f" with {dict(config.options)}" if config.options else ""
    takes = f". Its options: {', '.join(named)}" if isinstance(error, TypeError) and named else ""
    why = f"{type(error).__name__}: {_last_line(error)}{takes}"
    return EnvironmentSpecError(
        f"env.id '{config.id}' can't be made{options.replace(' with ', ' with env.options ', 1)}: {why}",
        key="env.options" if config.options else "env.id",
        said=f"'{config.id}' can't be made{options}: {why}",
    )


def _parameters(env_id: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of the environment's constructor; none where they can't be read. For messages only."""
    creator = _creator(env_id)
    try:
        return inspect.signature(creator).parameters if callable(creator) else {}
    except (TypeError, ValueError):  # written in another language; the message does without the list
        return {}


def _creator(env_id: str) -> object:
    """What makes the environment: a class, mostly. None where it is not known or can't be imported."""
    import gymnasium

    spec = gymnasium.registry.get(_full_id(env_id).rpartition(":")[2])
    if spec is None or not isinstance(spec.entry_point, str):
        return None if spec is None else spec.entry_point
    module, _, attribute = spec.entry_point.partition(":")
    try:
        with undisturbed():
            return getattr(importlib.import_module(module), attribute)
    except Exception:  # noqa: BLE001  importing it may raise anything; making it will tell what is wrong
        return None


def _episode_length(env: gymnasium.Env[Any, Any], config: EnvConfig) -> int:
    """The shortest time limit of the environment and all wrappers around it, in steps.

    An environment that ends its episodes by itself may say when, in an attribute `episode_length`.
    """
    limits = [config.max_episode_steps] if config.max_episode_steps is not None else []
    own_limit = getattr(env.unwrapped, "episode_length", None)
    if isinstance(own_limit, int):
        limits.append(own_limit)
    layer: Any = env
    while layer is not None:
        if layer.spec is not None and layer.spec.max_episode_steps is not None:
            limits.append(int(layer.spec.max_episode_steps))
        layer = layer.env if layer is not layer.unwrapped else None
    if not limits:
        raise EnvironmentSpecError(
            f"env.id '{config.id}' has no time limit, and the trainer needs the length of an episode for the "
            "discount and the warm-up: set env.max_episode_steps",
            key="env.id",
        )
    return min(limits)


@contextmanager
def _warnings_logged_once() -> Iterator[None]:
    """Log what is warned about inside, each text once; nothing becomes an error, whatever the filters say."""
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as recorded:
            caught = recorded
            warnings.simplefilter("always")
            yield
    finally:
        for warning in caught:
            text = _COLOUR.sub("", str(warning.message))
            from_gymnasium = _GYMNASIUM_PREFIX.match(text) is not None
            if text in _shown or (not from_gymnasium and issubclass(warning.category, _QUIET_CATEGORIES)):
                continue  # Python itself hides these categories from people who only use a library
            _shown.add(text)
            _LOG.warning("%s", _GYMNASIUM_PREFIX.sub("", text))


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else "no message"


_FIVE = "observation, reward, terminated, truncated, info"


class Returned(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The innermost wrapper: those of gymnasium itself take what an environment returns for granted."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Raises ReturnError, and what the environment raises."""
        if not _takes_seed(self.env.reset):
            raise ReturnError(
                "its reset does not take seed and options, as in the old gym: "
                "write def reset(self, *, seed=None, options=None)"
            )
        found = self.env.reset(seed=seed, options=options)
        if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], Mapping):
            raise ReturnError(f"reset returned {_what(found)}; gymnasium has it return two values: observation, info")
        self._check(found[0], "reset")
        return found

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Raises ReturnError, and what the environment raises."""
        found: Any = self.env.step(action)
        if not isinstance(found, tuple) or len(found) != 5:
            old = isinstance(found, tuple) and len(found) == 4
            hint = " (four are those of the old gym: done is terminated or truncated now)" if old else ""
            raise ReturnError(f"step returned {_what(found)}; gymnasium has it return five: {_FIVE}{hint}")
        observation, reward, terminated, truncated, info = found
        self._check(observation, "step")
        if not _is_number(reward):
            raise ReturnError(f"the reward is {_what(reward)}; one number is needed")
        for name, value in (("terminated", terminated), ("truncated", truncated)):
            if not _is_number(value):
                raise ReturnError(f"{name} is {_what(value)}; one truth value is needed")
        if not isinstance(info, Mapping):
            raise ReturnError(f"info is {_what(info)}; a dict is needed, {{}} where there is nothing to say")
        return observation, reward, bool(np.all(terminated)), bool(np.all(truncated)), dict(info)

    def _check(self, observation: Any, what: str) -> None:
        if problem := _problem(self.env.observation_space, observation, "the observation"):
            raise ReturnError(f"{what} returned what is not of its observation space: {problem}")


def checked(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """The environment with `Returned` around its innermost part."""
    if not isinstance(env, gymnasium.Wrapper):
        return Returned(env)
    layer: Any = env
    while isinstance(layer.env, gymnasium.Wrapper):
        layer = layer.env
    layer.env = Returned(layer.env)
    return env


def _takes_seed(reset: Any) -> bool:
    try:
        parameters = inspect.signature(reset).parameters.values()
    except (TypeError, ValueError):  # written in another language: calling it will tell
        return True
    names = {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    return takes_any or {"seed", "options"} <= names


def _problem(space: gymnasium.Space[Any], found: Any, where: str) -> str:
    """What part of an observation does not have the form of its space; "" where all have."""
    if isinstance(space, Dict):
        if not isinstance(found, Mapping):
            return f"{where} is {_what(found)}, and its space a Dict with the keys {', '.join(map(repr, space.spaces))}"
        if missing := [key for key in space.spaces if key not in found]:
            return f"{where} lacks {', '.join(map(repr, missing))}; it has {', '.join(map(repr, found)) or 'no keys'}"
        parts = [(part, found[key], f"{where}[{key!r}]") for key, part in space.spaces.items()]
    elif isinstance(space, Tuple):
        if not isinstance(found, tuple | list) or len(found) != len(space.spaces):
            return f"{where} is {_what(found)}, and its space a Tuple of {len(space.spaces)}"
        parts = [(part, found[index], f"{where}[{index}]") for index, part in enumerate(space.spaces)]
    else:
        return "" if _holds_numbers(found) else f"{where} is {_what(found)}; numbers are needed"
    return next(filter(None, (_problem(*part) for part in parts)), "")


def _holds_numbers(value: Any) -> bool:
    try:
        return np.asarray(value).dtype.kind in "bifu"
    except (ValueError, TypeError, RuntimeError):  # parts of different lengths; a tensor elsewhere than in memory
        return False


def _is_number(value: Any) -> bool:
    """Whether it is one number or truth value, be it in an array or tensor of one."""
    return _holds_numbers(value) and np.asarray(value).size == 1


def _what(value: Any) -> str:
    """A value in a few words."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)[:60]
    if isinstance(value, tuple | list):
        kind = type(value).__name__
        return f"a {kind} of {len(value)} value{'' if len(value) == 1 else 's'}"
    shape = getattr(value, "shape", None)
    return f"an array of shape {tuple(shape)}" if isinstance(shape, tuple) else f"a {type(value).__name__}"


STEPS = 200  # of random play: a moment
_GOAL = 10.0  # laser hockey's own reward at the end of a game; random play seldom comes that far


@dataclass(frozen=True)
class Look:
    """What was seen of an environment."""

    episode_length: int
    """The longest that an episode can be."""
    largest_reward: float
    """The largest size of a reward, as it is, in a moment of random play."""


def look_at(env: EnvConfig, seed: int, find_opponent: FindOpponent | None = None) -> Look:
    """Play at random for a moment.

    Raises:
        EnvironmentSpecError: it can't be made or is not supported.
        TrainingError: it fails at a step.
    """
    made = make_env(env, find_opponent=find_opponent)
    rng, largest = np.random.default_rng(seed), _GOAL if has_opponents(env.id) else 0.0
    try:
        made.reset(seed)
        for _ in range(STEPS):
            result = made.step(rng.uniform(-1, 1, made.action_dim).astype(np.float32))
            largest = max(largest, abs(result.reward))
            if result.terminated or result.truncated:
                break
        return Look(made.episode_length, largest)
    finally:
        made.close()
