"""Loading a spec: what is read, files that can't be, and values handed over in Python."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from spec_fixtures import (
    COMMAND_FORM,
    ENV,
    NAME,
    POSITIVE,
    load,
    write,
)

from tdmpc_lab.config.loader import load_resolved, load_spec, spec_from_dict
from tdmpc_lab.config.schema import EvalConfig
from tdmpc_lab.errors import SpecError


def test_the_smallest_spec(tmp_path: Path) -> None:
    path = write(tmp_path, ENV, "my_demo.v2.yaml")
    loaded = load_spec(path)
    assert loaded.spec.name == "my_demo.v2"
    assert loaded.spec.env.id == "Pendulum-v1"
    assert loaded.spec.agent.latent_dim == 1024
    assert loaded.spec.eval == EvalConfig()
    assert loaded.text == ENV
    assert loaded.path == path
    assert loaded.overrides == ()


def test_every_kind_of_value(tmp_path: Path) -> None:
    text = """
name: x.y-1
about: one line
why: 'no'
compare_to: "1971498_3"
env:
  id: my_module:My-v0
  options: {a: 1, "b": [x, {c: null}], 24:00:00: .inf}
  max_episode_steps: 200
agent: {lr: 1e-3, discount: null, bin_low: -5, horizon: 0x4}
train: {steps: 1e6, replay_capacity: 50_000, seed_steps: 0, device: "cuda:1", threads: 5e0}
eval: off
slurm:
  partition: day,week
  gpus: 2080ti:1
  memory: 800M
  time: 24:00:00
  setup: [module load x, 'echo "a: b"']
  extra: {qos: high, requeue: yes, nice: 5, mail-type: END}
"""
    spec = load(tmp_path, text)
    assert (spec.name, spec.about, spec.why, spec.compare_to) == ("x.y-1", "one line", "no", "1971498_3")
    assert spec.env.options == {"a": 1, "b": ["x", {"c": None}], "24:00:00": math.inf}
    assert spec.env.max_episode_steps == 200
    assert (spec.agent.lr, spec.agent.discount, spec.agent.horizon) == (1e-3, None, 4)
    assert (spec.agent.bin_low, type(spec.agent.bin_low)) == (-5.0, float)
    assert (spec.train.steps, type(spec.train.steps)) == (1_000_000, int)
    assert (spec.train.threads, type(spec.train.threads)) == (5, int)
    assert spec.train.replay_capacity == 50_000
    assert spec.eval is None
    assert (spec.slurm.partition, spec.slurm.gpus) == ("day,week", "2080ti:1")
    assert spec.slurm.time == timedelta(hours=24)
    assert spec.slurm.setup == ("module load x", 'echo "a: b"')
    assert spec.slurm.extra == {"qos": "high", "requeue": True, "nice": 5, "mail-type": "END"}


@pytest.mark.parametrize(
    ("text", "hours"),
    [("04:00:00", 4), ("1-12:00:00", 36), ("100:30:00", 100.5), ("'24:00:00'", 24), ("0:30:00", 0.5)],
)
def test_durations(tmp_path: Path, text: str, hours: float) -> None:
    assert load(tmp_path, f"{ENV}slurm: {{time: {text}}}").slurm.time == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["2", "'2'", "a100:2"])
def test_gpus(tmp_path: Path, text: str) -> None:
    assert str(load(tmp_path, f"{ENV}slurm: {{gpus: {text}}}").slurm.gpus) == text.strip("'")


def test_the_stem_must_fit_as_a_name(tmp_path: Path) -> None:
    path = write(tmp_path, f"{ENV}agent: {{lr: 0}}", "my demo.yaml")
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    first, second = caught.value.problems
    assert (first.key, first.line, first.hint) == ("name", None, "write name: …")
    assert first.message == f"missing, and 'my demo', the file's own, can't stand in for it; allowed: {NAME}"
    assert second.key == "agent.lr"
    path.write_text(ENV)
    assert load_spec(path, ["name=x"]).spec.name == "x"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dmo.yaml", "{}/dmo.yaml: no such file (did you mean {}/demo.yaml?)"),
        ("demo", "{}/demo: no such file (did you mean {}/demo.yaml?)"),
        ("no/x.yaml", "{}/no/x.yaml: no such file (there is no folder {}/no either)"),
        (".", "{}: this is a folder (name a YAML file)"),
        ("a\0b", "{}/a\0b: not the name of a file"),
        ("demo.yaml/x", "{}/demo.yaml/x: can't be read (Not a directory)"),
        ("empty.yaml", "{}/empty.yaml: the file is empty (a spec holds at least env: {id: …})"),
        ("latin.yaml", "{}/latin.yaml:2: not UTF-8 text (save the file as UTF-8)"),
    ],
)
def test_files_that_can_not_be_read(tmp_path: Path, name: str, expected: str) -> None:
    write(tmp_path, ENV)
    write(tmp_path, "", "empty.yaml")
    (tmp_path / "latin.yaml").write_bytes(f"{ENV}about: f\xfcr".encode("latin-1"))
    with pytest.raises(SpecError) as caught:
        load_spec(tmp_path / name, ["nonsense"])
    # What is wrong with the command line is told as well.
    assert [str(problem) for problem in caught.value.problems] == [
        expected.replace("{}", str(tmp_path)),
        "command line: found 'nonsense'; allowed: " + COMMAND_FORM,
    ]


def test_resolved_files_need_their_name(tmp_path: Path) -> None:
    path = write(tmp_path, ENV, "resolved.yaml")
    with pytest.raises(SpecError, match=r"resolved\.yaml: name: missing; allowed: .* \(write name: …\)"):
        load_resolved(path)
    write(tmp_path, f"name: x\n{ENV}", "resolved.yaml")
    assert load_resolved(str(path)).name == "x"
    with pytest.raises(SpecError, match="no such file"):
        load_resolved(tmp_path / "no.yaml")


def test_spec_from_dict() -> None:
    data: dict[str, Any] = {
        "name": "x",
        "env": {"id": "A-v0", "options": {"a": (1, 2)}},
        "eval": None,
        "agent": {"lr": 1},
        "slurm": {"time": timedelta(hours=30), "setup": ("a",)},
    }
    spec = spec_from_dict(data)
    assert spec.env.options == {"a": [1, 2]}
    assert spec.eval is None
    assert spec.agent.lr == 1.0
    assert spec.slurm.time == timedelta(hours=30)
    assert spec_from_dict({**data, "eval": False}) == spec
    assert spec_from_dict({**data, "slurm": {"time": "30:00:00", "setup": ["a"]}}) == spec


def endless() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    return loop


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (4, ["here: found 4; allowed: a mapping"]),
        ({5: 1}, ["here: 5: a key must be a text of at most 100 characters"]),
        (
            {"train": {"steps": 1e6}},
            [f"here: train.steps: found 1000000.0; allowed: {POSITIVE} (write 1000000)"],
        ),
        (
            {"about": "\ud800"},
            ["here: about: found '\\ud800'; allowed: text, numbers, true, false, null, lists"],
        ),
        (
            {"env": {"id": "x", "options": {"a": {1}}}},
            ["here: env.options.a: found {1}; allowed: text, numbers"],
        ),
        ({"env": {"id": "x", "options": endless()}}, ["here: env: nested more than 50 levels deep"]),
        ({"slurm": {"time": timedelta(0)}}, ["here: slurm.time: found datetime.timedelta(0); allowed: text"]),
        ({"slurm": {"time": timedelta(seconds=0.5)}}, ["here: slurm.time: found datetime.timedelta("]),
        ({"name": None}, [f"here: name: found null; allowed: {NAME} (leave the key out for its default)"]),
        (
            {"planner": {"samples": 25}},
            ["here: planner.samples: found 25, but planner.elites (64, the default) must be at most this"],
        ),
        (
            {"planner": {"samples": 25, "elites": 26}},
            ["here: planner.elites: 26 must be at most planner.samples (25, here)"],
        ),
    ],
)
def test_wrong_values_from_python(data: Any, expected: list[str]) -> None:
    if isinstance(data, dict):
        data = {"name": "x", "env": {"id": "x"}, **data}
    with pytest.raises(SpecError) as caught:
        spec_from_dict(data, "here")
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == len(expected)
    assert all(one.startswith(start) for one, start in zip(found, expected, strict=True))


def test_missing_values_from_python() -> None:
    with pytest.raises(SpecError) as caught:
        spec_from_dict({})
    assert [problem.key for problem in caught.value.problems] == ["name", "env.id"]


def test_loading_imports_nothing_heavy(tmp_path: Path) -> None:
    path = write(tmp_path, ENV)
    code = (
        "import sys; from tdmpc_lab.config.loader import load_spec;"
        "early = 'pydantic' in sys.modules;"
        f"load_spec({str(path)!r});"
        "heavy = {'torch', 'mlflow', 'pandas', 'submitit', 'gymnasium', 'numpy'} & set(sys.modules);"
        "print(early, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False []"


def test_the_schema_and_rules_need_the_standard_library_only() -> None:
    code = (
        "import sys; import tdmpc_lab.config.rules, tdmpc_lab.config.diff, tdmpc_lab.config.serialize;"
        "print(sorted({'pydantic', 'yaml', 'numpy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
