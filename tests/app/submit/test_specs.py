"""What is found wrong with specs after loading: told at the place where the value was given."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest

from tdmpc_lab.app.submit.specs import (
    check_environments,
    differences,
    find_spec,
    load_all,
    resolve_dimensions,
    split_arguments,
)
from tdmpc_lab.errors import EnvironmentSpecError, SpecError
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord, write_record

ID = "SpecsChecked-v0"


class Checked(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    made = 0

    def __init__(self, speed=1, mode="easy"):
        Checked.made += 1
        if speed < 0:
            raise ValueError("too slow")
        if mode == "strange":
            said = "'strange' is not known: did you mean 'easy'?"
            raise EnvironmentSpecError(f"mode {said}", key="env.options.mode", said=said)
        if mode == "stranger":
            raise EnvironmentSpecError("so the mode is easy or hard, not 'stranger'", key="env.options", option="mode")


@pytest.fixture(autouse=True)
def checked_env():
    gymnasium.register(ID, Checked, max_episode_steps=20)
    Checked.made = 0
    yield
    del gymnasium.registry[ID]


@pytest.fixture
def lab(project: Path) -> Project:
    return Project(project)


def write(lab: Project, name: str, text: str) -> str:
    (lab.experiments / name).write_text(text)
    return f"experiments/{name}"


def environment_problems(lab: Project, specs: list[str], *overrides: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        check_environments(lab, load_all(lab, specs, overrides))
    assert caught.value.exit_code == 2
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("options", "overrides", "expected"),
    [
        ("{}", ["env.id=SpecsCheckd-v0"], "command line: env.id: 'SpecsCheckd-v0' is not known to gymnasium: did"),
        ("{}", ["env.id=no_such_module:X-v0"], "command line: env.id: module 'no_such_module' of 'no_such_module:X-"),
        ("{id: 1}", [], f"experiments/a.yaml:4: env.options.id: can't be passed to '{ID}': set env.id instead"),
        ("{sped: 1}", [], f"experiments/a.yaml:4: env.options: what is given for '{ID}' has sped, which its"),
        ("{sped: 1}", ["env.options.mode=hard"], "experiments/a.yaml:4: env.options: what is given"),
        ("{mode: hard}", ["env.options.sped=1"], "command line: env.options: what is given"),
        ("{speed: -1}", [], f"experiments/a.yaml:4: env.options: '{ID}' can't be made with {{'speed': -1}}: ValueErr"),
        ("{mode: hard}", ["env.options.speed=-1"], f"command line: env.options: '{ID}' can't be made with {{'mode'"),
        ("{mode: strange}", [], "experiments/a.yaml:4: env.options.mode: 'strange' is not known: did you mean"),
        ("{mode: stranger}", ["env.options.speed=2"], "experiments/a.yaml:4: env.options: so the mode is easy or ha"),
    ],
)
def test_an_environment_is_told_at_the_key_that_is_wrong(lab, options, overrides, expected):
    spec = write(lab, "a.yaml", f"about: x\nenv:\n  id: {ID}\n  options: {options}\n")
    (problem,) = environment_problems(lab, [spec], *overrides)
    assert problem.startswith(expected)
    assert "env.id '" not in problem


def test_the_environments_of_all_specs_come_at_once(lab):
    write(lab, "base.yaml", "about: x\nenv: {id: Nowhere-v0}\n")
    child = write(lab, "child.yaml", "extends: base.yaml\n")
    good = write(lab, "good.yaml", f"env: {{id: {ID}}}\n")
    own = write(lab, "own.yaml", "env:\n  id: CartPole-v1\n")
    found = environment_problems(lab, [child, good, own, child])
    assert [problem.split(": ")[:2] for problem in found] == [
        ["experiments/base.yaml:2", "env.id"],
        ["experiments/own.yaml:2", "env.id"],
    ]


def test_what_the_command_line_breaks_in_every_spec_is_told_once(lab):
    specs = [write(lab, f"{name}.yaml", f"env: {{id: {ID}, options: {{speed: 1}}}}\n") for name in "ab"]
    (problem,) = environment_problems(lab, specs, "env.options.speed=-1")
    assert problem.startswith("command line: env.options: ")
    assert Checked.made == 1


def test_sizes_are_asked_for_where_the_environment_can_not_be_made(lab):
    spec = load_all(lab, [write(lab, "a.yaml", "env: {id: Nowhere-v0}\n")], [])[0].spec
    with pytest.raises(EnvironmentSpecError, match=r"^a\.yaml: env\.id: 'Nowhere-v0' is not(.|\n)*--obs-dim N"):
        resolve_dimensions(spec, None, None, Path("a.yaml"))


def compare_problem(lab: Project, spec: str, *overrides: str) -> str:
    (item,) = load_all(lab, [spec], overrides)
    with pytest.raises(SpecError) as caught:
        differences(lab, [item])
    (problem,) = caught.value.problems
    return str(problem)


def test_compare_to_has_a_place_and_a_suggestion(lab):
    write(lab, "baseline.yaml", "env: {id: x}\n")
    spec = write(lab, "a.yaml", "about: x\nenv: {id: x}\ncompare_to: baselin\n")
    text = "found {!r}, which is neither a job, nor an experiment with jobs, nor a spec in experiments/"
    assert compare_problem(lab, spec) == (
        f"experiments/a.yaml:3: compare_to: {text.format('baselin')} (did you mean 'baseline'?)"
    )
    assert compare_problem(lab, spec, "compare_to=zzz") == f"command line: compare_to: {text.format('zzz')}"
    job = lab.job("local-20260203-091422-123")
    job.folder.mkdir(parents=True)
    record = JobRecord(
        id=job.id,
        experiment="walker",
        group="0123456789",
        seed=1,
        cluster="local",
        spec_file=spec,
        submitted_at="2026-02-03T09:14:22+00:00",
        steps_total=1,
    )
    write_record(job, record)
    broken = lab.job("local-20260203-091422-124")
    broken.folder.mkdir()
    broken.record.write_text("{")
    assert compare_problem(lab, spec, "compare_to=waker").endswith(" (did you mean 'walker'?)")


@pytest.mark.parametrize("text", ["quick", "quick.yaml"])
def test_a_spec_of_the_project_named_without_its_folder(lab, text):
    spec = write(lab, "quick.yaml", f"env: {{id: {ID}}}\n")
    with pytest.raises(SpecError) as caught:
        find_spec(lab, text)
    assert str(caught.value) == f"{text}: no such file (did you mean {spec}?)"
    with pytest.raises(SpecError) as both:
        load_all(lab, [text, "none.yaml"], [])
    assert [str(problem) for problem in both.value.problems] == [str(caught.value), "none.yaml: no such file"]


def test_specs_that_are_there_are_found(lab, monkeypatch):
    spec = write(lab, "quick.yaml", f"env: {{id: {ID}}}\n")
    assert find_spec(lab, spec) == Path(spec)
    assert find_spec(lab, str(lab.root / spec)) == lab.root / spec
    monkeypatch.chdir(lab.experiments)
    assert find_spec(lab, "quick.yaml") == Path("quick.yaml")
    assert find_spec(lab, spec) == lab.root / spec


def test_the_values_of_a_sweep_may_be_longer_than_the_name_of_a_file() -> None:
    word = f"sweep.train.seed={list(range(1000))}"
    assert split_arguments(["a.yaml", word]) == (["a.yaml"], [word])


def test_a_replay_that_does_not_hold_an_episode(lab: Project) -> None:
    small = write(lab, "small.yaml", f"env: {{id: {ID}}}\ntrain: {{replay_capacity: 20}}\n")
    (problem,) = environment_problems(lab, [small])
    assert "small.yaml:2: train.replay_capacity: found 20, but an episode of" in problem
    assert "has up to 20 steps, kept whole (at least 21, or a smaller env.max_episode_steps)" in problem
    check_environments(lab, load_all(lab, [small], ["train.replay_capacity=21"]))
    check_environments(lab, load_all(lab, [small], ["env.max_episode_steps=10"]))
    phases = "phases=[{steps: 100, env: {max_episode_steps: 30}}, {}]"
    (problem,) = environment_problems(lab, [small], "train.replay_capacity=25", phases)
    assert "found 25" in problem


def test_batches_can_be_mirrored_where_the_environment_declares_it(lab: Project) -> None:
    mirrored = write(lab, "mirrored.yaml", "env: {id: Pendulum-v1}\ntrain: {mirror: on}\n")
    (problem,) = environment_problems(lab, [mirrored])
    assert "mirrored.yaml:2: train.mirror: found on, but Pendulum-v1 declares no mirror symmetry" in problem
    check_environments(lab, load_all(lab, [mirrored], ["env.id=hockey"]))
    check_environments(lab, load_all(lab, [mirrored], ["train.mirror=off"]))
