from __future__ import annotations

import dataclasses
import itertools
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import JobStatus, State
from tdmpc_lab.jobs.variants import overrides_text
from tdmpc_lab.notes.note import BEGIN, END, replace_machine_part
from tdmpc_lab.notes.render import NotePlaces, describe_for_mlflow, markdown_line, outcome_line, render_note
from tdmpc_lab.notes.results import evenly

RECORD = JobRecord(
    id="local-20260203-091422-123",
    experiment="quickstart",
    env_id="Pendulum-v1",
    about="backprop without reward shaping",
    why="does backprop alone break the stagnation?",
    group="0123456789",
    seed=1,
    overrides=("agent.horizon=9", "env.options={a: 1}"),
    compare_to="baseline",
    diff=("agent.horizon 18 → 9", "reward.scale 2 → 1"),
    code_against="local-20260201-120000-000",
    code_changes=("M src/train.py", "A src/shaping.py"),
    git_commit="1a2b3c4d5e6f",
    git_dirty=True,
    cluster="local",
    resources={"cpus": 4, "gpus": None, "setup": []},
    spec_file="experiments/quickstart.yaml",
    submitted_at="2026-02-03T09:14:22+01:00",
    steps_total=5000,
    max_local=1,
)
DONE = JobStatus(
    state=State.COMPLETED, attempt=1, node="node7", step=5000, steps=5000, elapsed_s=192.4, run_id="abc123"
)

PLACES = NotePlaces(
    checkpoint="step_000005000.pt",
    plot="plots/local-20260203-091422-123.svg",
    run="http://127.0.0.1:5000/#/experiments/1/runs/abc123",
    gpu="A4000",
)


def eval_row(step: int, mean: Any = -150.24, **fields: Any) -> dict[str, Any]:
    row = {"step": step, "split": "eval", "return_mean": mean, "return_std": 80.06, "episodes": 10}
    return {**row, "return_min": -300.0, "return_max": -1.5, **fields}


def test_a_note_in_full() -> None:
    evals = [eval_row(1000, -1200.5), eval_row(5000)]
    assert render_note(RECORD, DONE, evals, None, PLACES).splitlines() == [
        "##### local-20260203-091422-123 - 2026-02-03_09-14-22",
        "- backprop without reward shaping",
        "- overrides: agent.horizon=9, env.options={a: 1}",
        "- why: does backprop alone break the stagnation?",
        "- vs baseline: agent.horizon 18 → 9, reward.scale 2 → 1",
        "- code vs local-20260201-120000-000: 2 files: M src/train.py, A src/shaping.py",
        "- quickstart · seed 1 · Pendulum-v1 · 5,000 steps · local (cpus 4) · code 1a2b3c4d with changes",
        "- COMPLETED in 3:12 on node7 (A4000), step 5,000, return −150.2 ± 80.1 [−210.6, −89.9] over 10 episodes",
        "- curve of the return: ▁█ −1,200.5 → −150.2, best −150.2 at step 5,000",
        "- again: `tdmpc-lab submit experiments/quickstart.yaml agent.horizon=9 'env.options={a: 1}' --cluster local"
        " --again`"
        " · folder `jobs/local-20260203-091422-123`"
        " · checkpoint `jobs/local-20260203-091422-123/checkpoints/step_000005000.pt`"
        " · MLflow run [`abc123`](http://127.0.0.1:5000/#/experiments/1/runs/abc123)",
        "",
        "|  step |          return | lowest | highest |",
        "|------:|----------------:|-------:|--------:|",
        "| 1,000 | −1,200.5 ± 80.1 | −300.0 |   −1.50 |",
        "| 5,000 |   −150.2 ± 80.1 | −300.0 |   −1.50 |",
        "",
        "![return](plots/local-20260203-091422-123.svg)",
    ]


def test_a_bare_job_leaves_out_what_it_has_not() -> None:
    bare = dataclasses.replace(
        RECORD,
        about="",
        why="",
        overrides=(),
        compare_to=None,
        code_against=None,
        env_id="",
        git_commit=None,
        resources={},
        parent="1971498",
    )
    status = JobStatus(state=State.PENDING, cause="waiting for a free place (1 at a time)", steps=5000)
    assert render_note(bare, status, []) == (
        "##### local-20260203-091422-123 - 2026-02-03_09-14-22\n"
        "- quickstart\n"
        "- quickstart · seed 1 · 5,000 steps · local · continues from [1971498](1971498.md)\n"
        "- waiting for a free place (1 at a time)\n"
        "- again: `tdmpc-lab resume 1971498 --cluster local` · folder `jobs/local-20260203-091422-123`\n"
    )


def test_a_clean_tree_and_many_differences() -> None:
    record = dataclasses.replace(RECORD, git_dirty=False, diff=tuple(f"k{i} 0 → {i}" for i in range(11)))
    note = render_note(record, DONE, [])
    assert "code 1a2b3c4d\n" in note
    assert "k7 0 → 7, and 3 more\n" in note
    assert "k8" not in note
    assert "- vs baseline: no difference\n" in render_note(dataclasses.replace(RECORD, diff=()), DONE, [])


def test_a_job_of_a_sweep_says_which() -> None:
    sweep = {"index": 4, "count": 6, "point": {"agent.horizon": 6, "train.seed": 1}}
    lines = render_note(dataclasses.replace(RECORD, sweep=sweep), DONE, []).splitlines()
    assert lines[1:3] == [
        "- backprop without reward shaping",
        "- sweep: agent.horizon=6, train.seed=1 (job 5 of 6)",
    ]


STARTED = datetime(2026, 2, 3, 9, 14, 25, tzinfo=UTC)


@pytest.mark.parametrize(
    ("state", "fields", "line"),
    [
        (State.PENDING, {}, "waiting"),
        (State.PENDING, {"cause": "Priority"}, "waiting: Priority"),
        (State.PENDING, {"cause": "waiting in SLURM's queue"}, "waiting in SLURM's queue"),
        (
            State.RUNNING,
            {"cause": "starting, nothing reported yet"},
            "RUNNING; starting, nothing reported yet",
        ),
        (
            State.RUNNING,
            {"node": "node7", "started_at": STARTED, "step": 2000},
            "RUNNING on node7 since 2026-02-03 09:14:25, step 2,000/5,000",
        ),
        (
            State.RUNNING,
            {"node": "node7", "step": 0, "steps_per_s": 41.66, "eta_s": 75.0, "attempt": 2},
            "RUNNING on node7, step 0/5,000, 41.7 steps/s, 1:15 left, attempt 2",
        ),
        (State.COMPLETED, {"elapsed_s": 11525, "attempt": 3}, "COMPLETED in 3:12:05, attempt 3"),
        (
            State.FAILED,
            {"elapsed_s": 7, "cause": "NaN in loss/reward"},
            "FAILED after 0:07: NaN in loss/reward",
        ),
        (
            State.FAILED,
            {"elapsed_s": 7, "node": "node7", "step": 40, "cause": "x"},
            "FAILED after 0:07 on node7, step 40: x",
        ),
        (
            State.CANCELLED,
            {"elapsed_s": 7, "cause": "stopped by SIGINT"},
            "CANCELLED after 0:07: stopped by SIGINT",
        ),
        (State.TIMEOUT, {"cause": "SLURM ended it"}, "TIMEOUT: SLURM ended it"),
        (State.UNKNOWN, {}, "UNKNOWN: nothing is known of it"),
        (State.UNKNOWN, {"cause": "gone"}, "UNKNOWN: gone"),
        (State.UNKNOWN, {"cause": "gone", "step": 40}, "UNKNOWN: gone (last sign, step 40)"),
        (
            State.UNKNOWN,
            {"cause": "gone", "step": 40, "elapsed_s": 7, "attempt": 2},
            "UNKNOWN, attempt 2: gone (last sign after 0:07, step 40)",
        ),
    ],
)
def test_outcomes_in_words(state: State, fields: dict[str, Any], line: str) -> None:
    assert outcome_line(JobStatus(state=state, steps=5000, **fields)) == line


@pytest.mark.parametrize(
    ("row", "score"),
    [
        (eval_row(5000, 5), ", return 5.00 ± 80.1 [−55.4, 65.4] over 10 episodes"),
        (eval_row(5000, episodes=1), ", return −150.2 ± 80.1 over 1 episode"),
        (eval_row(5000, episodes="many", return_std=None), ", return −150.2"),
        (eval_row(5000, float("nan"), return_std=float("nan")), ""),
        (eval_row(5000, None), ""),
    ],
)
def test_the_score_is_the_last_evaluations(row: dict[str, Any], score: str) -> None:
    assert (
        outcome_line(DONE, [eval_row(1000, 7.0), row]).removeprefix("COMPLETED in 3:12 on node7, step 5,000") == score
    )
    status = dataclasses.replace(DONE, latest_eval=row)
    assert outcome_line(status).endswith(score or "step 5,000")


def test_the_table_is_short_and_says_so() -> None:
    note = render_note(RECORD, DONE, [eval_row(1000 * i) for i in range(1, 51)])
    steps = re.findall(r"^\| +([0-9,]+) \|", note, re.MULTILINE)
    assert len(steps) == 12
    assert (steps[0], steps[-1]) == ("1,000", "50,000")
    assert note.endswith("12 of 50 evaluations; all: `jobs/local-20260203-091422-123/metrics.jsonl`\n")


def test_steps_done_again_are_shown_once_and_missing_numbers_as_such() -> None:
    rows = [eval_row(1000, 1.0), eval_row(2000, 2.0), eval_row(1000, None, return_min="x"), {"split": "eval"}]
    note = render_note(RECORD, DONE, rows)
    assert [line for line in note.splitlines() if line.startswith("| ")][1:] == [
        "| 1,000 | ? ± 80.1 |      ? |   −1.50 |"
    ]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 500), st.integers(2, 20))
def test_evenly(count: int, most: int) -> None:
    picked = evenly(count, most)
    assert len(picked) == min(count, most)
    assert picked == sorted(set(picked))
    if count:
        assert (picked[0], picked[-1]) == (0, count - 1)
    gaps = [b - a for a, b in itertools.pairwise(picked)]
    assert not gaps or max(gaps) - min(gaps) <= 1


FAILED = JobStatus(state=State.FAILED, cause="boom", steps=5000)


def test_the_end_of_the_traceback_is_fenced_when_the_job_failed() -> None:
    trace = "Traceback:\n" + "".join(f"  line {i}\n" for i in range(40)) + "\x1b[31mValueError\x1b[0m: \tx\x07\n"
    note = render_note(RECORD, FAILED, [], trace)
    body = note.split("\n\n")[1].splitlines()
    assert body[0] == "```text"
    assert body[1] == "  line 11"
    assert body[-2:] == ["ValueError:     x", "```"]
    assert len(body) == 32
    for status, traceback in ((DONE, trace), (FAILED, None), (FAILED, " \n")):
        assert "```" not in render_note(RECORD, status, [], traceback)


def test_a_fence_in_the_traceback_does_not_end_the_block() -> None:
    note = render_note(RECORD, FAILED, [], "a\n`````\nb\n" + "x" * 1000)
    lines = note.splitlines()
    assert lines[-1] == "``````"
    assert lines.count("``````text") == lines.count("``````") == 1
    assert len(lines[-2]) == 400


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain words, a < b and 3 * 4", "plain words, a < b and 3 * 4"),
        ("two\nlines\r\n# and more", "two lines # and more"),
        ("# heading", r"\# heading"),
        ("```python", r"\```python"),
        ("--> bad", r"\--> bad"),
        ("1. first", r"1\. first"),
        ("[x]: http://y", r"\[x]: http://y"),
        ("<!-- hide <b>all</b>", r"\<!-- hide \<b>all\</b>"),
        ("2 opponents", "2 opponents"),
    ],
)
def test_words_from_outside_stay_words(text: str, line: str) -> None:
    assert markdown_line(text) == line


def test_backticks_in_an_override_do_not_end_the_command() -> None:
    record = dataclasses.replace(RECORD, overrides=("about=`a``b`",), spec_file="`x`")
    note = render_note(record, DONE, [])
    assert "again: ```tdmpc-lab submit '`x`' 'about=`a``b`' --cluster local --again``` ·" in note
    assert " · MLflow run `` `r` ``\n" in render_note(record, dataclasses.replace(DONE, run_id="`r`"), [])


hostile = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [BEGIN, END, f"x\n{END}\ny", "```\n```", "~~~", "<!--", "\r\n- x\n# y", "| a |", "\ud800", "\x1b[0m"]
    ),
)


@settings(deadline=None, max_examples=150)
@given(hostile, hostile, hostile, hostile, st.lists(hostile, max_size=3))
def test_nothing_from_outside_breaks_the_block(
    about: str, why: str, cause: str, traceback: str, names: list[str]
) -> None:
    record = dataclasses.replace(
        RECORD,
        about=about,
        why=why,
        overrides=tuple(names),
        diff=tuple(names),
        code_changes=tuple(names),
        experiment=about,
        env_id=why,
    )
    status = dataclasses.replace(FAILED, cause=cause, node=about, run_id=why)
    text = render_note(record, status, [eval_row(5000)], traceback, NotePlaces(cause, cause, cause, cause), error=cause)
    head, _, rest = text.partition("\n\n")
    told = overrides_text(record)
    assert len([line for line in head.splitlines() if not line.startswith("- fix: ")]) == 7 + bool(why) + bool(told)
    assert all(line.startswith("- ") for line in head.splitlines()[1:])
    assert not re.search(r"^- *(#|>|[-+*] |```|~~~)", head, re.MULTILINE)
    fences = [line for line in rest.splitlines() if re.fullmatch(r"`{3,}(text)?", line)]
    if fences:
        outer = fences[0].removesuffix("text")
        assert rest.endswith(f"\n{outer}\n")
        assert sum(len(fence.removesuffix("text")) >= len(outer) for fence in fences) == 2
    note = replace_machine_part(b"", text)
    assert replace_machine_part(note, text) == note
    assert note.count(b"<!-- tdmpc-lab:") == 2


def test_the_description_begins_with_the_outcome_in_plain_words() -> None:
    note = replace_machine_part(b"", render_note(RECORD, DONE, [])).decode()
    lines = describe_for_mlflow(RECORD, DONE, note).splitlines()
    assert lines[0] == "local-20260203-091422-123: COMPLETED in 3:12 on node7, step 5,000"
    assert lines[1] == ""
    assert lines[2] == "##### local-20260203-091422-123 - 2026-02-03_09-14-22"
    assert BEGIN not in lines
    assert END not in lines


@pytest.mark.parametrize("inside", ["x" * 90, "```", "`````"])
def test_a_long_description_is_cut_between_lines_and_its_fence_closed(inside: str) -> None:
    note = "a\n````text\n" + f"{inside}\n" * 3000 + "````\n"
    text = describe_for_mlflow(RECORD, DONE, note)
    assert 4700 < len(text) <= 5000
    lines = text.splitlines()
    assert lines[-1] == "…"
    assert lines[3] == "````text"
    if inside != "`````":  # which ends the fence itself
        assert lines[-2] == "````"


def test_a_long_note_without_a_fence_is_cut_too() -> None:
    text = describe_for_mlflow(RECORD, DONE, "```\nx\n```\n" + "words\n" * 2000)
    assert len(text) <= 5000
    assert text.endswith("words\n…\n")


def test_warnings_are_shown_once_each() -> None:
    warnings = ["MLflow is down", "no episode\nwas long enough", "MLflow is down"]
    note = render_note(RECORD, DONE, [], warnings=warnings)
    assert note.count("- warning: MLflow is down\n") == 1
    assert "- warning: no episode was long enough\n" in note
