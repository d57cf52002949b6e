"""Which runs are put together, which of them count, and the figures of those."""

from __future__ import annotations

import pytest
from compare_fixtures import games, games_of_two, make_job

from tdmpc_lab.app.agents.compare import compare_jobs
from tdmpc_lab.errors import UsageError
from tdmpc_lab.files import append_jsonl
from tdmpc_lab.intervals import wilson
from tdmpc_lab.jobs.paths import Project


def seeds(root, first, experiment, curves, **more):
    for place, curve in enumerate(curves):
        make_job(root, str(first + place), experiment, place + 1, curve, **more)


def test_figures_of_known_curves(project):
    seeds(project, 101, "a", [[0, 10, 20], [2, 14, 22], [4, 24, 14]])
    seeds(project, 201, "b", [[1, 11, 30]], settings={"agent.horizon": 5})
    found = compare_jobs(Project(project), ["a", "b"], threshold=14)
    assert (found.begin, found.end, found.metric.name) == (100, 300, "return_mean")
    a, b = found.summaries
    assert (a.name, a.seeds, a.enough, b.name, b.seeds) == ("a", 3, False, "b", 1)
    assert a.final.value == pytest.approx((20 + 22 + 14) / 3)
    assert a.best.value == pytest.approx((20 + 22 + 24) / 3)
    assert [one.area for one in a.figures] == [10.0, 13.0, 16.5]  # by hand: trapezoids over two intervals
    assert b.final == (30.0, None, None)
    assert (a.steps_to.median, a.steps_to.count, a.steps_to.least, a.steps_to.most) == (200, 3, 200, 300)
    assert a.hours_to.median == pytest.approx(0.02)
    (pair,) = found.pairs
    assert (pair.name, pair.over, pair.improvement.value, pair.judgement) == ("b", "a", 1.0, "too few seeds to tell")
    assert [(change.key, change.values) for change in found.differences] == [("agent.horizon", ("9", "5"))]


def test_runs_that_do_not_reach_a_threshold_count_as_later_than_all_others(project):
    seeds(project, 101, "a", [[0, 0, 5], [0, 0, 0], [0, 0, 0]])
    found = compare_jobs(Project(project), ["a"], threshold=5, alone=True)
    reached = found.summaries[0].steps_to
    assert (reached.count, reached.of, reached.median, reached.least) == (1, 3, None, 300)


def test_five_seeds_are_enough_to_tell(project):
    seeds(project, 101, "a", [[0, value] for value in (1, 2, 3, 4, 5)])
    seeds(project, 201, "b", [[0, value] for value in (6, 7, 8, 9, 10)], settings={"agent.rho": 0.7})
    seeds(project, 301, "c", [[0, value] for value in (1, 2, 3, 4, 6)], settings={"agent.rho": 0.8})
    found = compare_jobs(Project(project), ["a", "b", "c"])
    assert [pair.judgement for pair in found.pairs] == ["better", "no difference to be told"]
    lower = compare_jobs(Project(project), ["a", "b"], lower=True)
    assert lower.pairs[0].judgement == "worse"
    turned = compare_jobs(Project(project), ["a", "b"], reference="b")
    assert (turned.pairs[0].name, turned.pairs[0].judgement) == ("a", "worse")
    with pytest.raises(UsageError, match="--reference d: no such variant; there are: a, b"):
        compare_jobs(Project(project), ["a", "b"], reference="d")


def test_the_reference_is_what_the_specs_compare_to(project):
    seeds(project, 101, "new", [[1]], settings={"agent.rho": 0.7}, compare_to="old")
    seeds(project, 201, "old", [[2]])
    assert compare_jobs(Project(project), ["new", "old"]).reference == "old"


def test_a_run_that_ended_early_is_named_and_does_not_count(project):
    seeds(project, 101, "a", [[0, 1, 2, 3], [0, 1, 2, 3]])
    make_job(project, "103", "a", 3, [50.0], outcome="failed")
    make_job(project, "104", "a", 4, [], outcome="stopped")
    make_job(project, "105", "off", 5, [], outcome=None, settings={"eval": None})
    seeds(project, 201, "b", [[0, 1, 2, 4]], settings={"agent.rho": 0.7})
    found = compare_jobs(Project(project), ["a", "b", "off"])
    a = found.summaries[0]
    assert (a.seeds, [run.id for run in a.short], [run.id for run in a.empty]) == (2, ["103"], ["104"])
    assert a.final.value == 3.0
    told = "\n".join(found.remarks)
    assert "103 is FAILED at step 100 of 400" in told
    assert "evaluated to step 100: not in the figures, which are of step 400" in told
    assert "104 is CANCELLED at step 0 of 400 (no reason given): no evaluation" in told
    assert "eval is off in its spec" in told


def test_unequal_lengths_are_compared_where_both_are(project):
    seeds(project, 101, "a", [[0, 1, 2, 3, 9, 9]])
    seeds(project, 201, "b", [[0, 5]], settings={"agent.rho": 0.7}, every=150)
    found = compare_jobs(Project(project), ["a", "b"])
    assert (found.begin, found.end) == (150, 300)
    assert [one.final.value for one in found.summaries] == [2.0, 5.0]
    assert any(
        "compared up to step 300, as far as every variant goes; farther there are a alone" in r for r in found.remarks
    )
    earlier = compare_jobs(Project(project), ["a", "b"], until=250)
    assert (earlier.end, earlier.summaries[0].final.value) == (200, 1.0)
    with pytest.raises(UsageError, match="the first evaluation is at step 100"):
        compare_jobs(Project(project), ["a", "b"], until=50)


def test_one_long_or_short_run_moves_nobody_else(project):
    seeds(project, 101, "a", [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [7]])
    found = compare_jobs(Project(project), ["a"], alone=True)
    assert (found.end, found.summaries[0].seeds) == (400, 3)
    assert "104 is COMPLETED at step 100 of 400, evaluated to step 100" in "\n".join(found.remarks)


def test_a_job_that_was_resumed_for_longer_takes_its_parents_place(project):
    seeds(project, 101, "a", [[0, 1, 2], [0, 1, 2]])
    make_job(project, "103", "a", 1, [0, 1, 2, 3], settings={"train.steps": 800}, parent="101")
    make_job(project, "104", "a", 2, [], settings={"train.steps": 800}, parent="102", outcome=None)
    found = compare_jobs(Project(project), ["a"], alone=True)
    (a,) = found.summaries
    assert [one.run.id for one in a.figures] == ["102", "103"]
    assert [(old.id, new.id) for old, new in a.variant.doubles] == [("101", "103"), ("104", "102")]
    told = "\n".join(found.remarks)
    assert "101 was continued as 103" in told
    assert "104 continues from 102 and has not come as far: 102 counts" in told


def test_a_seed_that_ran_twice_is_one_seed(project):
    make_job(project, "101", "a", 1, [0, 1])
    make_job(project, "102", "a", 1, [0, 3])
    make_job(project, "103", "a", 1, [0])
    found = compare_jobs(Project(project), ["a"], alone=True)
    assert (found.summaries[0].seeds, found.summaries[0].final.value) == (1, 3.0)
    assert sum("has seed 1 like 102" in line for line in found.remarks) == 2
    each = compare_jobs(Project(project), ["a"], by="job")
    assert [one.name for one in each.summaries] == ["a · 101", "a · 102", "a · 103"]
    assert each.differences == ()


def test_the_points_of_a_sweep_are_variants(project):
    for place, (horizon, seed) in enumerate([(4, 1), (4, 2), (6, 1), (6, 2)]):
        point = {"agent.horizon": horizon, "train.seed": seed}
        sweep = {"index": place, "count": 4, "point": point}
        make_job(project, f"7_{place}", "s", seed, [horizon], settings={"agent.horizon": horizon}, sweep=sweep)
    assert [one.name for one in compare_jobs(Project(project), ["s"]).summaries] == ["h4", "h6"]
    assert [one.seeds for one in compare_jobs(Project(project), ["7"]).summaries] == [2, 2]
    assert [one.seeds for one in compare_jobs(Project(project), ["7_0", "7_[2-3]"]).summaries] == [1, 2]


def test_variants_are_named_by_what_tells_them_apart(project):
    """Of one the record says in what it differs from a third job, of another which point of a sweep it is."""
    unlike = ("env.opponent strong → weak", "agent.latent_dim 512 → 64", "agent.horizon 3 → 9")
    point = {"agent.horizon": 5, "train.seed": 1}
    make_job(project, "101", "s", 1, [1], settings={"agent.horizon": 9}, diff=unlike)
    make_job(project, "7_0", "s", 1, [1], settings={"agent.horizon": 5}, sweep={"index": 0, "count": 1, "point": point})
    make_job(project, "102", "s", 1, [1], settings={"agent.horizon": 4}, overrides=("agent.horizon=4",))
    here = Project(project)
    assert [one.name for one in compare_jobs(here, ["101", "7_0"]).summaries] == ["horizon 9", "horizon 5"]
    assert [one.name for one in compare_jobs(here, ["7_0", "102"]).summaries] == ["horizon 5", "horizon 4"]
    make_job(project, "103", "s", 1, [1])
    assert [one.name for one in compare_jobs(here, ["102", "103"]).summaries] == ["horizon 4", "s"]


def test_strata_over_a_key(project):
    for place, (env, rho, value) in enumerate(
        [("Pendulum-v1", 0.5, 1), ("hockey", 0.5, 3), ("Pendulum-v1", 0.7, 2), ("hockey", 0.7, 5)]
    ):
        settings = {"env.id": env, "agent.rho": rho}
        make_job(project, str(101 + place), "tasks", 1, [value], settings=settings)
    assert len(compare_jobs(Project(project), ["tasks"]).summaries) == 4
    found = compare_jobs(Project(project), ["tasks"], over=["env.id"])
    assert [(one.seeds, one.final.value) for one in found.summaries] == [(2, 2.0), (2, 3.5)]
    assert found.pairs[0].improvement.value == 1.0  # within each task, not across
    assert [change.key for change in found.differences] == ["agent.rho"]
    apart = compare_jobs(Project(project), ["101", "104"], over=["env.id"])
    assert apart.pairs == ()
    assert "no probability of improvement where two variants have no value of env.id in common" in apart.remarks
    with pytest.raises(UsageError, match=r"--over env\.idd: unknown key; did you mean 'id'"):
        compare_jobs(Project(project), ["tasks"], over=["env.idd"])


def test_win_rates_pool_the_games(project):
    hockey = {"env.id": "hockey"}
    seeds(project, 101, "a", [[games(0.2), games(0.8)], [games(0.1), games(0.6)]], settings=hockey)
    found = compare_jobs(Project(project), ["a"], alone=True)
    assert (found.metric.name, found.metric.label) == ("win", "win rate")
    (wins,) = found.summaries[0].wins
    assert (wins.opponent, wins.won, wins.played) == ("strong", 14, 20)
    assert (wins.low, wins.high) == wilson(14, 20)
    assert compare_jobs(Project(project), ["a"], alone=True, metric="return_mean").summaries[0].wins == ()
    with pytest.raises(
        UsageError, match="--metric wins: no evaluation has it; there are: win, draw, loss, return_mean"
    ):
        compare_jobs(Project(project), ["a"], alone=True, metric="wins")


def test_opponents_that_all_have_met_are_what_is_compared(project):
    hockey = {"env.id": "hockey"}
    seeds(project, 101, "a", [[games_of_two(1.0, 0.4)]], settings=hockey)
    alone = compare_jobs(Project(project), ["a"], alone=True)
    assert alone.metric.name == "win"
    assert [(w.opponent, w.won, w.played) for w in alone.summaries[0].wins] == [
        (None, 7, 10),
        ("weak", 5, 5),
        ("strong", 2, 5),
    ]
    seeds(project, 201, "b", [[games(0.5)]], settings={**hockey, "agent.rho": 0.7})
    found = compare_jobs(Project(project), ["a", "b"])
    assert (found.metric.name, found.metric.label) == ("win_strong", "win rate vs strong")
    assert [one.final.value for one in found.summaries] == [0.4, 0.5]
    assert [(w.won, w.played) for one in found.summaries for w in one.wins] == [(2, 5), (5, 10)]
    mixed = compare_jobs(Project(project), ["a", "b"], metric="win")
    assert any("different opponents" in line for line in mixed.remarks)


def test_values_that_are_no_numbers_and_torn_lines_lose_nothing_else(project):
    paths = make_job(project, "101", "a", 1, [1, 2])
    append_jsonl(paths.metrics, {"step": 300, "split": "eval", "attempt": 1, "return_mean": float("nan")})
    with paths.metrics.open("ab") as file:
        file.write(b'{"step":400,"split":"eval","return_m')
    damaged = make_job(project, "102", "a", 2, [1, 2])
    damaged.metrics.write_bytes(b'{"step":1,"split":"eval",\n' + damaged.metrics.read_bytes())
    found = compare_jobs(Project(project), ["a"], alone=True)
    assert (found.end, found.summaries[0].seeds, found.summaries[0].final.value) == (200, 1, 2.0)
    assert "101: 1 evaluation without a finite return_mean, left out" in found.remarks
    assert any("102 can't be read and is left out" in line and "metrics.jsonl:1" in line for line in found.remarks)


def test_a_config_that_only_another_version_can_read(project):
    make_job(project, "101", "a", 1, [1])
    paths = make_job(project, "102", "b", 1, [1], settings={"agent.rho": 0.7})
    paths.resolved.write_text(paths.resolved.read_text() + "newer: {key: 3}\n")
    changes = {change.key: change.values for change in compare_jobs(Project(project), ["a", "b"]).differences}
    assert changes == {"agent.rho": ("0.5", "0.7"), "newer.key": ("–", "3")}


def test_other_code_is_warned_of_and_its_files_are_named(project):
    make_job(project, "101", "a", 1, [1], snapshot="aa11", git_commit="c" * 40)
    make_job(project, "102", "b", 1, [1], snapshot="bb22", settings={"agent.rho": 0.7})
    here = Project(project)
    (warning,) = compare_jobs(here, ["a", "b"]).remarks
    assert warning == "warning: the code is not the same: a ran cccccccc, snapshot aa11; b ran snapshot bb22"
    for name, text in (("aa11", "1"), ("bb22", "2"), ("cc33", "1")):
        for file in ("src/learner.py", "experiments/a.yaml", "README.md"):
            path = here.snapshots / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (warning,) = compare_jobs(here, ["a", "b"]).remarks
    assert warning.endswith("; it differs in src/learner.py")
    (here.snapshots / "cc33" / "README.md").write_text("another text")
    make_job(project, "103", "c", 1, [1], snapshot="cc33", settings={"agent.rho": 0.7})
    assert compare_jobs(here, ["a", "c"]).remarks == ()  # specs and texts alone
    assert [one.name for one in compare_jobs(here, ["101", "102"], by="code").summaries] == ["a", "b"]


def test_a_resume_with_another_config_is_told(project):
    make_job(project, "101", "a", 1, [1, 2])
    make_job(project, "102", "a", 1, [1, 2], settings={"agent.lr": 1e-4}, parent="101", overrides=("agent.lr=1e-4",))
    told = "\n".join(compare_jobs(Project(project), ["a"]).remarks)
    assert "102 continues from 101 with agent.lr=1e-4: what was evaluated before is of the old config" in told


def test_what_can_t_be_compared_says_what_could(project):
    here = Project(project)
    with pytest.raises(UsageError, match=r"say what to compare: .*there are no jobs yet"):
        compare_jobs(here, [])
    make_job(project, "101", "a", 1, [1], compare_to="b")
    with pytest.raises(UsageError, match=r"job 101 is one variant, a: .*its spec says compare_to: b.*--alone"):
        compare_jobs(here, ["a"])
    make_job(project, "102", "empty", 1, [])
    with pytest.raises(UsageError, match="nothing to compare yet:\n  empty: 102 is COMPLETED"):
        compare_jobs(here, ["empty"], alone=True)
    with pytest.raises(UsageError, match=r"experiments with jobs, newest first: empty \(1\), a \(1\)"):
        compare_jobs(here, ["a", "nobody"])
