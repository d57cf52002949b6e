"""A spec as YAML reads back the same, here and in other readers."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tdmpc_lab.config.durations import format_duration, parse_duration
from tdmpc_lab.config.loader import load_resolved, load_resolved_text, load_spec, load_stored, spec_from_dict
from tdmpc_lab.config.serialize import dump_yaml, flatten, key_word, to_dict
from tdmpc_lab.errors import SpecError

SMALL = {"name": "x", "env": {"id": "A-v0"}}


def reload(folder: Path, text: str) -> Any:
    (folder / "resolved.yaml").write_text(text)
    return load_resolved(folder / "resolved.yaml")


def test_to_dict_is_plain() -> None:
    spec = spec_from_dict({**SMALL, "eval": None, "slurm": {"time": "30:00:00", "setup": ["a"]}})
    values = to_dict(spec)
    assert values["slurm"]["time"] == "1-06:00:00"
    assert values["slurm"]["setup"] == ["a"]
    assert values["eval"] is None
    assert values["compare_to"] is None
    assert list(values)[:2] == ["name", "about"]
    assert spec_from_dict(values) == spec


def test_the_text(tmp_path: Path) -> None:
    spec = spec_from_dict(
        {
            "name": "x",
            "about": "off",
            "env": {
                "id": "A-v0",
                "options": {
                    "no": "yes",
                    "n": None,
                    "flag": False,
                    "list": [1, 2.5, 1e-5, math.inf, -math.inf],
                    "texts": ["a b", {"k": [True, {}]}],
                    "deep": {"empty": {}, "none": []},
                    "text": "2026-01-01",
                },
            },
            "agent": {"lr": 1e-5, "grad_clip": 1e20},
            "eval": None,
            "slurm": {"setup": ["module load x"]},
        }
    )
    text = dump_yaml(spec)
    assert text.startswith(
        """\
name: x
about: "off"
why: ""
compare_to: null
env:
  id: A-v0
  options:
    "no": "yes"
    "n": null
    flag: false
    list: [1, 2.5, 1.0e-05, .inf, -.inf]
    texts:
      - "a b"
      - {"k": [true, {}]}
    deep:
      empty: {}
      none: []
    text: "2026-01-01"
  max_episode_steps: null
  opponent: null
  time_limit: null
  self_play: off
reward:
  scale: 1.0
  shaping: off
  backprop: off
phases: []
agent:
"""
    )
    assert "\neval: off\n" in text
    assert '\n  time: "1-00:00:00"\n' in text
    assert "\n  grad_clip: 1.0e+20\n" in text
    assert reload(tmp_path, text) == spec
    # Another reader of YAML 1.1 sees the same values.
    other = yaml.safe_load(text)
    assert other.pop("eval") is False
    assert other["env"].pop("self_play") is other["reward"].pop("shaping") is other["reward"].pop("backprop") is False
    assert (other["slurm"]["mail"], other["slurm"]["container"]) == (False, False)
    mine = to_dict(spec)
    assert mine["env"].pop("self_play") is mine["reward"].pop("shaping") is mine["reward"].pop("backprop") is None
    del mine["eval"]
    mine["slurm"].update(mail=False, container=False)
    assert other == mine


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)
one_line = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=60)
specs = st.builds(
    lambda **parts: spec_from_dict(parts),
    name=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    about=one_line,
    why=one_line,
    compare_to=st.none() | st.just("1971498_3"),
    env=st.fixed_dictionaries(
        {
            "id": st.sampled_from(["A-v0", "off", "1e5", "m:A", "'", "#x", "🎈"]),
            "options": st.dictionaries(st.text(max_size=20), values, max_size=4),
        }
    ),
    agent=st.fixed_dictionaries({"lr": st.floats(1e-300, 1e300), "bin_low": st.floats(-1e300, -20)}),
    train=st.fixed_dictionaries({"seed": st.integers(0, 2**31 - 1), "device": st.sampled_from(["cpu", "cuda:1"])}),
    eval=st.none() | st.just({"every": 5}),
    slurm=st.fixed_dictionaries(
        {
            "time": st.integers(1, 10**7).map(lambda seconds: timedelta(seconds=seconds)),
            "gpus": st.sampled_from([None, 1, "2", "2080ti:1"]),
            "setup": st.lists(one_line, max_size=3),
            "extra": st.dictionaries(
                st.sampled_from(["qos", "no", "x-y", "1"]), one_line | st.integers() | st.booleans()
            ),
        }
    ),
)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=specs)
def test_every_spec_reads_back_the_same(tmp_path: Path, spec: Any) -> None:
    assert reload(tmp_path, dump_yaml(spec)) == spec
    assert spec_from_dict(to_dict(spec)) == spec


def test_nan_reads_back(tmp_path: Path) -> None:
    spec = spec_from_dict({"name": "x", "env": {"id": "A-v0", "options": {"a": math.nan}}})
    assert math.isnan(reload(tmp_path, dump_yaml(spec)).env.options["a"])


def test_flatten() -> None:
    nested = {"a": 1, "b": {"c": {"d": [1]}, "e": {}, "f": []}, "g": None}
    assert flatten(nested) == {"a": 1, "b.c.d": [1], "b.e": {}, "b.f": [], "g": None}
    assert flatten({}) == {}


@given(st.integers(1, 10**8))
@settings(deadline=None, max_examples=100)
def test_durations_read_back(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "00:00:01"), (86399, "23:59:59"), (86400, "1-00:00:00"), (10**7, "115-17:46:40")],
)
def test_format_duration(seconds: int, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


def test_switches_in_words() -> None:
    """As a user writes them, and as an override reads them again."""
    assert key_word("reward.backprop", None) == "reward.backprop=off"
    assert key_word("reward.backprop", {}) == "reward.backprop=on"
    assert key_word("reward.backprop", True) == "reward.backprop=on"  # as it is written in a sweep
    assert key_word("reward.backprop", False) == "reward.backprop=off"
    assert key_word("reward.backprop", {"bonus": 3}) == "reward.backprop={bonus: 3}"
    assert key_word("env.options", {}) == "env.options={}"


def test_a_stored_spec_of_an_older_version_is_read_without_keys_that_are_gone(tmp_path: Path) -> None:
    """A job that waits while the package is updated, a checkpoint of last year. What a user writes is refused."""
    spec = spec_from_dict(SMALL)
    older = dump_yaml(spec).replace("planner:\n", "planner:\n  cuda_graph: true\n")
    assert "cuda_graph: true" in older
    assert reload(tmp_path, older) == spec
    assert load_resolved_text(older, "a checkpoint") == spec
    assert load_stored(tmp_path / "resolved.yaml", ["train.seed=4"]).spec.train.seed == 4
    with pytest.raises(SpecError, match=r"planner\.cuda_graph: unknown key \(did you mean agent\.cuda_graphs\?\)"):
        load_spec(tmp_path / "resolved.yaml")
    with pytest.raises(SpecError, match="unknown key"):
        reload(tmp_path, older.replace("cuda_graph: true", "cuda_grph: true"))
