"""A spec with a sweep: which points it has, how a point is made again, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_fixtures import ENV, EVAL, POSITIVE, problems, write

from tdmpc_lab.config.layers import Origin
from tdmpc_lab.config.loader import LoadedSpec, load_spec, load_sweep
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.errors import SpecError


def sweep(folder: Path, text: str, *overrides: str) -> list[LoadedSpec]:
    return load_sweep(write(folder, ENV + text), overrides)


def points(folder: Path, text: str, *overrides: str) -> list[dict[str, object]]:
    found = sweep(folder, text, *overrides)
    return [dict(item.point.values) for item in found if item.point is not None]


GRID = "sweep: {agent.horizon: [4, 6], train.seed: [0, 1, 2]}\n"


def test_a_grid_is_all_combinations_the_last_key_fastest(tmp_path: Path) -> None:
    found = sweep(tmp_path, GRID)
    values = [(item.spec.agent.horizon, item.spec.train.seed) for item in found]
    assert values == [(4, 0), (4, 1), (4, 2), (6, 0), (6, 1), (6, 2)]
    assert {item.spec.name for item in found} == {"demo"}
    last = found[-1].point
    assert last is not None
    assert (last.index, last.count, dict(last.values)) == (5, 6, {"agent.horizon": 6, "train.seed": 2})
    assert str(last) == "agent.horizon=6, train.seed=2 (job 6 of 6)"
    assert all("sweep" not in dump_yaml(item.spec) for item in found)


def test_zip_keeps_values_together_and_goes_with_a_grid(tmp_path: Path) -> None:
    text = "sweep:\n  zip: {agent.horizon: [4, 6], agent.rho: [0.5, 0.7]}\n  train.seed: [0, 1]\n"
    found = [(s.agent.horizon, s.agent.rho, s.train.seed) for s in (item.spec for item in sweep(tmp_path, text))]
    assert found == [(4, 0.5, 0), (4, 0.5, 1), (6, 0.7, 0), (6, 0.7, 1)]


def test_a_list_of_rows(tmp_path: Path) -> None:
    text = "agent: {horizon: 3}\nsweep:\n- {agent.horizon: 4, train.seed: 5}\n- {agent.rho: 0.7}\n- {}\n"
    found = sweep(tmp_path, text)
    assert [(s.agent.horizon, s.agent.rho, s.train.seed) for s in (item.spec for item in found)] == [
        (4, 0.5, 5),
        (3, 0.7, 1),
        (3, 0.5, 1),
    ]
    assert [dict(item.point.values) for item in found if item.point] == [
        {"agent.horizon": 4, "train.seed": 5},
        {"agent.rho": 0.7},
        {},
    ]


def test_whole_sections_texts_and_exponents(tmp_path: Path) -> None:
    text = """\
eval: {episodes: 3}
sweep:
  eval: [off, {every: 5}]
  env.options.g: [1e1, on, "7"]
  train.steps: [1e5]
"""
    found = [item.spec for item in sweep(tmp_path, text)]
    assert [spec.eval and (spec.eval.every, spec.eval.episodes) for spec in found[::3]] == [None, (5, 3)]
    assert [spec.env.options["g"] for spec in found[:3]] == [10.0, True, "7"]
    assert found[0].train.steps == 100_000


def test_a_point_reads_as_it_was_written(tmp_path: Path) -> None:
    row = "{reward.backprop: {bonus: 10}, env.opponent: {weak: 0.5, strong: 0.5}, eval: off}"
    (item,) = load_sweep(write(tmp_path, f"env: {{id: hockey}}\nsweep: [{row}]\n"))
    said = "reward.backprop={bonus: 10}, env.opponent={weak: 0.5, strong: 0.5}, eval=off (job 1 of 1)"
    assert str(item.point) == said
    (item,) = load_sweep(write(tmp_path, ENV + "sweep: [{eval: {every: 1e4}, train.steps: 1e5}]\n"))
    assert str(item.point) == "eval={every: 10000}, train.steps=100000 (job 1 of 1)"


@pytest.mark.parametrize(
    "text",
    [
        GRID,
        "sweep: {eval: [off, {every: 5}], agent.discount: [null, 0.9], env.options.name: ['7', off, a b, 'null']}\n",
        "sweep: [{agent.horizon: 4, train.seed: 5}, {agent.horizon: 5}, {}]\n",
        "agent: {horizon: 3}\nsweep: {zip: {agent.horizon: [4, 6], agent.rho: [1e-3, 0.7]}}\n",
        "sweep: {reward.backprop: [off, {bonus: 10}, {bonus: 5, discount: 0.9}], train.steps: [1e5, 2e5]}\n",
        "sweep: {eval: [{every: 1e4}, {every: 2_000}], train.replay_capacity: [1e4]}\n",
    ],
)
def test_the_overrides_of_a_point_make_it_again_alone(tmp_path: Path, text: str) -> None:
    for item in sweep(tmp_path, text, "train.batch_size=8"):
        (again,) = load_sweep(item.path, item.overrides)
        assert again.spec == item.spec
        assert again.point is None
        assert again.overrides == item.overrides
        assert item.overrides[0] == "train.batch_size=8"
        assert item.overrides[-1] == "sweep=off"


def test_without_a_sweep_there_is_one_spec(tmp_path: Path) -> None:
    for text in ("", "sweep: off\n"):
        (item,) = sweep(tmp_path, text)
        assert item.point is None
        assert item.overrides == ()


def test_one_spec_of_a_sweep_is_its_first_point(tmp_path: Path) -> None:
    loaded = load_spec(write(tmp_path, ENV + GRID))
    assert (loaded.spec.agent.horizon, loaded.spec.train.seed) == (4, 0)
    assert load_spec(tmp_path / "demo.yaml", ["agent.horizon=7"]).spec.agent.horizon == 7


def test_an_override_pins_the_key(tmp_path: Path) -> None:
    assert points(tmp_path, GRID, "agent.horizon=9") == [{"train.seed": seed} for seed in (0, 1, 2)]
    assert [item.spec.agent.horizon for item in sweep(tmp_path, GRID, "agent.horizon=9")] == [9, 9, 9]
    (alone,) = sweep(tmp_path, GRID, "agent.horizon=9", "train.seed=4")
    assert alone.point is None
    assert len(sweep(tmp_path, GRID, "agent={horizon: 9}")) == 3
    # Only what is still different is a point of its own.
    rows = "sweep: [{agent.horizon: 4}, {agent.horizon: 6}, {agent.horizon: 4, train.seed: 7}]\n"
    assert points(tmp_path, rows, "agent.horizon=9") == [{}, {"train.seed": 7}]
    columns = "sweep: {zip: {agent.horizon: [4, 6], agent.rho: [0.5, 0.7]}}\n"
    assert points(tmp_path, columns, "agent.horizon=9") == [{"agent.rho": 0.5}, {"agent.rho": 0.7}]
    assert len(sweep(tmp_path, "sweep: {eval.every: [5, 6]}\n", "eval=off")) == 1


def test_an_override_inside_a_swept_section_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, ENV + "sweep: {eval: [off, {every: 5}]}", "eval.every=7") == [
        "command line: eval.every: eval is swept as a whole, so a key inside it can't be set for all points "
        "(set it whole, eval=…, or turn the sweep off: sweep=off)"
    ]


def test_a_sweep_on_the_command_line(tmp_path: Path) -> None:
    assert points(tmp_path, "", "sweep.train.seed=[0, 1]") == [{"train.seed": 0}, {"train.seed": 1}]
    assert points(tmp_path, "", "sweep={train.seed: [0, 1]}") == [{"train.seed": 0}, {"train.seed": 1}]
    more = points(tmp_path, "sweep: {agent.horizon: [4, 6], train.seed: [7, 8, 9]}\n", "sweep.train.seed=[0, 1]")
    assert [(point["train.seed"], point["agent.horizon"]) for point in more] == [(0, 4), (0, 6), (1, 4), (1, 6)]
    assert points(tmp_path, GRID, "sweep=off") == []
    assert problems(tmp_path, ENV, "sweep.train.seed=[0, -1]", "sweep.agent.horizn=[1]", "sweep.=[1]") == [
        "command line: found 'sweep.=[1]'; allowed: key=value, such as agent.horizon=5",
        "command line: sweep.agent.horizn: unknown key (did you mean 'horizon'?)",
        "command line: sweep.train.seed.1: found -1; allowed: a whole number ≥ 0 and < 2147483648",
    ]


def test_a_sweep_is_not_inherited(tmp_path: Path) -> None:
    write(tmp_path, ENV + "agent: {horizon: 5}\nsweep: {agent.horizn: 3, train.seed: []}\n", "base.yaml")
    (item,) = load_sweep(write(tmp_path, "extends: base.yaml\n"))
    assert (item.spec.agent.horizon, item.point) == (5, None)
    assert len(load_sweep(write(tmp_path, "extends: base.yaml\nsweep: {train.seed: [1, 2]}\n"))) == 2


def test_where_a_swept_value_was_given(tmp_path: Path) -> None:
    path = write(tmp_path, ENV + "sweep:\n  agent.horizon:\n  - 4\n  - 6\n")
    assert [item.origin("agent.horizon") for item in load_sweep(path)] == [Origin(str(path), 4), Origin(str(path), 5)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # values
        ("agent.horizon: [4, -1]", f"3: sweep.agent.horizon.1: found -1; allowed: {POSITIVE}"),
        ("agent.horizon:\n  - 4\n  - x", f"5: sweep.agent.horizon.1: found x; allowed: {POSITIVE}"),
        ('agent.horizon: ["4"]', f'3: sweep.agent.horizon.0: found "4"; allowed: {POSITIVE} (drop the quotes: 4)'),
        ("agent.horizon: [[4]]", f"3: sweep.agent.horizon.0: found a list; allowed: {POSITIVE}"),
        ("eval: [off, {evry: 5}]", "3: sweep.eval.1.evry: unknown key (did you mean 'every'?)"),
        ("eval: [off, {every: 0}]", f"3: sweep.eval.1.every: found 0; allowed: {POSITIVE}"),
        ("eval: [5]", f"3: sweep.eval.0: found 5; allowed: {EVAL}"),
        ("train.seed: [0, !x 1]", "3: sweep.train.seed.1: a tag (`!…`) is not allowed"),
        ("zip: {agent.horizon: [4, 0]}", f"3: sweep.zip.agent.horizon.1: found 0; allowed: {POSITIVE}"),
        # keys
        ("agent.horizn: [4, 6]", "3: sweep.agent.horizn: unknown key (did you mean 'horizon'?)"),
        ("horizon: [4, 6]", "3: sweep.horizon: unknown key (did you mean agent.horizon?)"),
        ("agnt.horizon: [4, 6]", "3: sweep.agnt.horizon: unknown key (did you mean 'agent'?)"),
        ("agent.horizon.x: [4]", "3: sweep.agent.horizon.x: unknown key (agent.horizon has no keys of its own)"),
        ("zip: {agent.horizn: [4]}", "3: sweep.zip.agent.horizn: unknown key (did you mean 'horizon'?)"),
        (
            "name: [a, b]",
            "3: sweep.name: can't be swept: the jobs of a sweep are one experiment and share its name",
        ),
        (
            "slurm.partition: [day, week]",
            "3: sweep.slurm.partition: can't be swept: the jobs of a sweep are one job array, and its tasks ask "
            "for the same; write a spec for each request",
        ),
        ("sweep: [1]", "3: sweep.sweep: can't be swept: a sweep can't be swept"),
        # forms
        ("agent.horizon: 4", "3: sweep.agent.horizon: found 4; allowed: a list of values, as in [4, 6, 8] (write [4])"),
        (
            "agent.horizon: []",
            "3: sweep.agent.horizon: found an empty list; allowed: a list of values, as in [4, 6, 8]",
        ),
        (
            "agent: {horizon: [4, 6]}",
            "3: sweep.agent: found keys with values; allowed: a list of values, as in [4, 6, 8] "
            "(write the whole key: agent.horizon: […])",
        ),
        (
            "zip: {agent.horizon: [4, 6], agent.rho: [1]}",
            "3: sweep.zip: agent.horizon has 2, agent.rho has 1; allowed: lists of one length "
            "(without `zip`, all combinations are made)",
        ),
        ("zip: [4]", "3: sweep.zip: found a list; allowed: keys with lists of values of one length"),
        # the same twice
        (
            "agent.horizon: [4, 6, 4]",
            "3: sweep.agent.horizon.2: says the same as sweep.agent.horizon.0 (keep one of them)",
        ),
        (
            "agent.horizon: [4]\n  zip: {agent.horizon: [5], train.seed: [1]}",
            "4: sweep.zip.agent.horizon: agent.horizon is swept beside it (keep one of them)",
        ),
        (
            "eval: [{every: 5}]\n  eval.episodes: [4, 5]",
            "4: sweep.eval.episodes: eval is swept beside it (keep one of them)",
        ),
        (
            "train.seed: [0, 1]\n  zip: {eval: [off], eval.every: [4]}",
            "4: sweep.zip.eval.every.0: eval is set beside it (keep one of them)",
        ),
    ],
)
def test_one_thing_wrong(tmp_path: Path, text: str, expected: str) -> None:
    (problem,) = problems(tmp_path, f"{ENV}sweep:\n  {text}\n")
    expected = f"demo.yaml:{expected}"
    assert problem == expected if expected.endswith(")") else problem.startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sweep:", "sweep: found nothing; allowed: keys with lists of values"),
        ("sweep: {}", "sweep: found nothing; allowed: keys with lists of values"),
        ("sweep: []", "sweep: found nothing; allowed: keys with lists of values"),
        ("sweep: 5", "sweep: found 5; allowed: keys with lists of values"),
        ("sweep: on", "sweep: found on; allowed: keys with lists of values"),
        ("sweep: !x {}", "sweep: a tag"),
        ("sweep: [4]", "sweep.0: found 4; allowed: keys with values, as in {agent.horizon: 4}"),
        ("sweep: [{agent.horizon: 4}, {agent.horizon: x}]", "sweep.1.agent.horizon: found x; allowed: "),
        ("sweep: [{agent.horizon: 4}, {agent.horizon: 4}]", "sweep.1: says the same as sweep.0"),
        ("sweep: [{eval: off, eval.every: 4}]", "sweep.0.eval.every: eval is set beside it"),
        (
            "sweep: [{agent.horizon: 9}, {}]",
            "sweep: the points agent.horizon=9 and (nothing changed) are the same job (keep one of them)",
        ),
        (
            f"sweep: {{train.seed: {list(range(40))}, agent.horizon: {list(range(1, 31))}}}",
            "sweep: 1,200 points; allowed: at most 1,000 (split it into several specs)",
        ),
    ],
)
def test_a_wrong_sweep(tmp_path: Path, text: str, expected: str) -> None:
    (problem,) = problems(tmp_path, f"{ENV}{text}\n")
    assert problem.startswith(f"demo.yaml:2: {expected}")


def test_rules_between_keys_are_checked_for_every_point(tmp_path: Path) -> None:
    text = "planner: {samples: 128}\nsweep:\n  planner.elites: [64, 256]\n  train.seed: [0, 1, 2]\n"
    assert problems(tmp_path, ENV + text) == [
        "demo.yaml:4: sweep.planner.elites.1: 256 must be at most planner.samples (128, demo.yaml:2); "
        "in the point planner.elites=256, train.seed=0 and 2 more"
    ]
    both = "sweep: [{planner.elites: 64}, {planner.elites: 32, planner.samples: 16, planner.policy_trajectories: 0}]\n"
    (problem,) = problems(tmp_path, ENV + both)
    assert problem.startswith("demo.yaml:2: sweep.1.planner.elites: 32 must be at most planner.samples (16")


def test_what_is_wrong_with_all_points_is_told_once_and_of_no_point(tmp_path: Path) -> None:
    assert problems(tmp_path, ENV + "planner: {elites: 600}\n" + GRID) == [
        "demo.yaml:2: planner.elites: 600 must be at most planner.samples (512, the default)"
    ]
    assert problems(tmp_path, "env: {options: {a: 1}}\n" + GRID)[0].startswith("demo.yaml:1: env.id: missing")
    assert len(problems(tmp_path, "env: {options: {a: 1}}\n" + GRID)) == 1


def test_a_sweep_can_hold_what_is_required(tmp_path: Path) -> None:
    found = load_sweep(write(tmp_path, "sweep: {env.id: [A-v0, B-v0]}\n"))
    assert [item.spec.env.id for item in found] == ["A-v0", "B-v0"]
    # One that is wrong does not make the key a missing one.
    assert problems(tmp_path, "sweep: {env.id: [A-v0, 5], train.seed: 3}\n") == [
        "demo.yaml:1: sweep.train.seed: found 3; allowed: a list of values, as in [4, 6, 8] (write [3])",
        "demo.yaml:1: sweep.env.id.1: found 5; allowed: an environment id such as Pendulum-v1 or module:Name-v0 "
        '(quote it: "5")',
    ]


def test_every_problem_of_the_file_at_once(tmp_path: Path) -> None:
    text = """\
agent: {lr: fast}
sweep:
  agent.horizon: [4, x]
  agent.hidden: [3]
  train.seed: 3
planner: {elites: 600}
sluurm: {}
"""
    found = [line.split(": ")[:2] for line in problems(tmp_path, ENV + text)]
    assert found == [
        ["demo.yaml:2", "agent.lr"],
        ["demo.yaml:4", "sweep.agent.horizon.1"],
        ["demo.yaml:5", "sweep.agent.hidden"],
        ["demo.yaml:6", "sweep.train.seed"],
        ["demo.yaml:7", "planner.elites"],
        ["demo.yaml:8", "sluurm"],
    ]


def test_a_file_that_can_t_be_read_is_told_beside_its_sweep(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_sweep(write(tmp_path, "extends: none.yaml\nsweep: {agent.horizon: [x]}\n"))
    assert [problem.key for problem in caught.value.problems] == ["extends", "sweep.agent.horizon.0"]


def test_a_thousand_points_in_seconds(tmp_path: Path) -> None:
    found = sweep(tmp_path, f"sweep: {{train.seed: {list(range(1000))}}}\n")
    assert [item.spec.train.seed for item in found] == list(range(1000))
