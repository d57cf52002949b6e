"""Spec files written for one test, and the problems found in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import SpecError

ENV = "env: {id: Pendulum-v1}\n"


def write(folder: Path, text: str, name: str = "demo.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def load(folder: Path, text: str, *overrides: str) -> Spec:
    return load_spec(write(folder, text), overrides).spec


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    """The problems as printed, without the folder."""
    with pytest.raises(SpecError) as caught:
        load(folder, text, *overrides)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


ONE_LINE = "one line of text, at most 500 characters"
NAME = "a name of letters, digits, _ - . (not - or . first), at most 80 characters"
POSITIVE = "a whole number ≥ 1"
EVAL = "a section with the keys every, episodes, opponents, video_every, or on or off"
DURATION = "a duration HH:MM:SS or D-HH:MM:SS, more than zero"
TEXT_LINE = "one line of text"
SECTION = "a section with the keys"
COMMAND_FORM = "key=value, such as agent.horizon=5"
REWARD = "a section with the keys scale, shaping, backprop"
