"""Notes as entries of the log: what is read out of them, their order, filters, roll-up and page."""

from __future__ import annotations

import html
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdmpc_lab.errors import UsageError
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import JobStatus, State
from tdmpc_lab.notes.entries import (
    Filter,
    choose,
    in_order,
    parse_entry,
    parse_moment,
    read_log,
    rollup_lines,
    unjudged,
)
from tdmpc_lab.notes.note import BEGIN, END, add_bullet, put_verdict, replace_machine_part
from tdmpc_lab.notes.render import render_array_note, render_note
from tdmpc_lab.notes.results import table
from tdmpc_lab.notes.rollup import RollupEditedError, check_unedited, log_page, move_into, rollup

RECORD = JobRecord(
    id="2004711", experiment="backprop", env_id="hockey", about="backprop without reward shaping", group="g", seed=1,
    compare_to="baseline", diff=("agent.horizon 18 → 9",), cluster="slurm", spec_file="experiments/backprop.yaml",
    submitted_at="2026-02-03T09:14:22+01:00", steps_total=500_000, why="does it help?", resources={"gpus": "2080ti:1"},
)  # fmt: skip
DONE = JobStatus(state=State.COMPLETED, steps=500_000, step=500_000, attempt=1, node="tcml-node37", elapsed_s=11525)
EVAL = {"step": 500_000, "return_mean": 1.0, "opponent": "strong", "win": 0.87, "draw": 0.0, "loss": 0.13}


def note_of(status: JobStatus = DONE, record: JobRecord = RECORD) -> bytes:
    return replace_machine_part(b"", render_note(record, status, [EVAL], warnings=["slow"]))


def test_the_tools_own_note() -> None:
    entry = parse_entry("2004711", note_of())
    assert (entry.experiment, entry.state, entry.verdict, entry.problem) == ("backprop", "COMPLETED", None, None)
    assert entry.time == datetime(2026, 2, 3, 9, 14, 22)
    assert rollup_lines(entry) == [
        "##### 2004711 - 2026-02-03_09-14-22",
        "- backprop without reward shaping",
        "- seed 1",
        "- why: does it help?",
        "- vs baseline: agent.horizon 18 → 9",
        "- COMPLETED in 3:12:05 on tcml-node37, step 500,000, win rate vs strong 0.87",
    ]
    assert entry.words == () and not entry.imported


SWEEP = {"index": 4, "count": 6, "point": {"agent.horizon": 6, "train.seed": 1}}
SWEPT_WORDS = ("agent.horizon=6", "train.seed=1", "sweep=off")


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({"seed": 2}, ["- seed 2"]),
        ({"overrides": ("agent.lr=0.001", "train.envs=4")}, ["- overrides: agent.lr=0.001, train.envs=4 · seed 1"]),
        ({"overrides": ("train.seed=3", "agent.lr=1"), "seed": 3}, ["- overrides: train.seed=3, agent.lr=1"]),
        # what it is called and where it runs makes no other job
        ({"overrides": ("about=mine", "slurm.gpus=1", "name=x", "sweep=off")}, ["- seed 1"]),
        ({"overrides": SWEPT_WORDS, "sweep": SWEEP}, ["- sweep: agent.horizon=6, train.seed=1 (job 5 of 6)"]),
        (
            {"overrides": ("agent.lr=1", *SWEPT_WORDS), "sweep": SWEEP},
            ["- sweep: agent.horizon=6, train.seed=1 (job 5 of 6)", "- overrides: agent.lr=1"],
        ),
        (
            {"overrides": ("agent.horizon=6",), "sweep": {**SWEEP, "point": {"agent.horizon": 6}}, "seed": 7},
            ["- sweep: agent.horizon=6 (job 5 of 6) · seed 7"],
        ),
        (
            {"overrides": ("train.steps=900",), "parent": "2004710"},
            ["- overrides: train.steps=900 · seed 1 · continues from 2004710"],
        ),
        ({"rerun_of": "2004710"}, ["- seed 1 · rerun of 2004710"]),
    ],
)
def test_the_log_tells_jobs_of_one_experiment_apart(fields: dict[str, object], lines: list[str]) -> None:
    record = replace(RECORD, **fields)  # type: ignore[arg-type]
    said = rollup_lines(parse_entry("2004711", note_of(record=record)))
    assert said[1] == "- backprop without reward shaping"
    assert said[2 : said.index("- why: does it help?")] == lines


def test_a_seed_is_told_though_the_overrides_are_cut_off() -> None:
    overrides = ("env.options={names: [" + "a, " * 300 + "b]}", "train.seed=3")
    entry = parse_entry("2004711", note_of(record=replace(RECORD, overrides=overrides, seed=3)))
    assert entry.bullets[1].startswith("overrides: env.options=") and entry.bullets[1].endswith("… · seed 3")


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_read(state: State) -> None:
    status = JobStatus(state=state, steps=10, attempt=1, cause="because of that")
    assert parse_entry("2004711", note_of(status)).state == state.value
    named_so = replace(RECORD, about="FAILED once, COMPLETED now", experiment="RUNNING")
    entry = parse_entry("2004711", note_of(status, named_so))
    assert (entry.state, entry.experiment) == (state.value, "RUNNING")


def test_an_array_is_one_entry_with_a_line_per_task() -> None:
    tasks = [
        (
            replace(
                RECORD,
                id=f"2004800_{i}",
                array_id="2004800",
                sweep={"index": i, "count": 2, "point": {"agent.horizon": i}},
            ),
            replace(DONE, state=state),
        )
        for i, state in enumerate([State.COMPLETED, State.FAILED])
    ]
    entry = parse_entry("2004800", replace_machine_part(b"", render_array_note("2004800", tasks)))
    assert (entry.experiment, entry.state) == ("backprop", "FAILED")
    assert [line.partition(":")[0] for line in rollup_lines(entry)[-2:]] == [
        "- `2004800_0` agent.horizon=0",
        "- `2004800_1` agent.horizon=1",
    ]


def test_words_and_verdicts() -> None:
    note = note_of() + b"- my words\n```\n- in a fence\n--> good: no\n```\n## mine\nfree text  \r\n--> it is broken\n"
    entry = parse_entry("2004711", note)
    assert entry.words == ("- my words", "free text", "--> it is broken")
    assert entry.verdict is not None and entry.verdict.judgement == "bad" and not entry.verdict.by_command
    judged = parse_entry("2004711", put_verdict(note, "--> good: because [cause: agent.horizon=9]"))
    assert judged.verdict is not None and judged.verdict.judgement == "good" and judged.verdict.by_command
    assert judged.verdict.causes == ("agent.horizon=9",)
    assert rollup_lines(judged)[-2:] == ["--> it is broken", "--> good: because [cause: agent.horizon=9]"]


def test_a_broken_note_is_an_entry_with_its_problem() -> None:
    entry = parse_entry("2004711", note_of().replace(END.encode(), b""))
    assert entry.problem is not None and entry.problem.startswith("the end marker is missing")
    assert "- backprop without reward shaping" in entry.lines


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_an_entry_of_the_log(data: bytes, below_a_block: bool) -> None:
    entry = parse_entry("2004711", note_of() + data if below_a_block else data)
    lines = rollup([entry]).decode().split("\n")
    assert sum(line.startswith("##### 2004711") for line in lines) == 1
    log_page([entry], "t", datetime(2026, 1, 1)).encode()


@pytest.mark.parametrize(
    ("heading", "time", "state"),
    [
        ("##### 2004711 - 22.1.2026 failed", datetime(2026, 1, 22), "failed"),
        ("##### 2004711 2026-01-22 22:05", datetime(2026, 1, 22, 22, 5), None),
        ("##### 2004711 - 2026-99-99", None, None),
        ("##### 2004711 - killed by the night shift again", None, None),
        ("##### 2004711 (Abgebrochen)", None, "Abgebrochen"),
    ],
)
def test_headings_by_hand(heading: str, time: datetime | None, state: str | None) -> None:
    entry = parse_entry("2004711", f"{heading}\n- x\n".encode())
    assert (entry.time, entry.state, entry.heading) == (time, state, heading)


def entry_at(job_id: str, heading: str = "") -> tuple[str, bytes]:
    return job_id, f"##### {job_id}{heading}\n- x {job_id}\n".encode()


NOTES = [
    entry_at("1971525"),
    entry_at("1971498", " - 2026-01-23_08-51-48"),
    entry_at("local-20260124-101010-000", " - 2026-01-24_10-10-10"),
    entry_at("1971519", " - killed"),
    entry_at("1969941", " - 2026-01-22_22-05-49"),
    entry_at("999999", ""),
    entry_at("1972400", " - 2026-02-01"),
    entry_at("1972401_0", " - 2026-02-01"),
    ("1972402_0", replace_machine_part(b"", "##### 1972402_0 - 2026-02-01\n- x 1972402_0")),  # its array has one
    entry_at("1972402", " - 2026-02-01"),
]
IN_ORDER = [
    *("999999", "1969941", "1971498", "1971519", "1971525", "local-20260124-101010-000"),
    *("1972400", "1972401_0", "1972402"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for job_id, content in NOTES:
        (tmp_path / f"{job_id}.md").write_bytes(content)
    for name in ("README.md", "JOBS.md", "draft.md", "1971525.txt"):
        (tmp_path / name).write_text("##### 1 - killed\n")
    return tmp_path


def test_the_log_is_in_order_and_undated_jobs_stand_by_their_number(folder: Path) -> None:
    entries, problems = read_log(folder)
    assert [entry.id for entry in entries] == IN_ORDER
    assert problems == []
    assert read_log(folder / "none") == ([], [])
    (folder / "1971525.md").write_bytes(BEGIN.encode() + b"\n")
    assert "1971525.md: the end marker is missing" in read_log(folder)[1][0]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Filter(), IN_ORDER),
        (Filter(state="KILLED"), ["1971519"]),
        (Filter(text="X 19714"), ["1971498"]),
        (Filter(since=datetime(2026, 1, 23), until=datetime(2026, 1, 24)), ["1971498", "1971519", "1971525"]),
        (Filter(verdict="none", state="unknown", until=datetime(2026, 1, 23)), ["999999", "1969941"]),
        (Filter(verdict="good"), []),
        (Filter(experiment="backprop"), []),
    ],
)
def test_filters(folder: Path, wanted: Filter, ids: list[str]) -> None:
    assert [entry.id for entry in choose(read_log(folder)[0], wanted)] == ids


def test_what_is_unjudged() -> None:
    running = parse_entry("1", note_of(JobStatus(state=State.RUNNING, steps=1, attempt=1)))
    done = parse_entry("2", note_of())
    judged = parse_entry("3", put_verdict(note_of(), "--> good: because"))
    assert unjudged([running, done, judged]) == [done]
    assert [entry.id for entry, _ in in_order([judged, done])] == ["2", "3"]


def test_times_as_people_write_them() -> None:
    now = datetime(2026, 2, 3, 12)
    assert parse_moment("7d", now) == now - timedelta(days=7)
    assert parse_moment("12h", now) == now - timedelta(hours=12)
    assert parse_moment("2026-01-22", now) == datetime(2026, 1, 22)
    assert parse_moment("2026-01-22", now, end=True) == datetime(2026, 1, 23)
    assert parse_moment("2026-01-22_22-05-49", now) == datetime(2026, 1, 22, 22, 5, 49)
    with pytest.raises(UsageError, match="'yesterday' is no time"):
        parse_moment("yesterday", now)


def two_entries() -> list[tuple[str, bytes]]:
    return [("2004711", note_of()), entry_at("2004712", " - killed")]


def roll(notes: list[tuple[str, bytes]]) -> bytes:
    return rollup(parse_entry(job_id, note) for job_id, note in notes)


def test_the_rollup_is_replaced_only_where_nobody_wrote_into_it() -> None:
    written = roll(two_entries())
    check_unedited("JOBS.md", b"", b"", written)
    check_unedited("JOBS.md", written, b"", roll([two_entries()[0]]))
    running = [("2004711", note_of(JobStatus(state=State.RUNNING, steps=1, attempt=1))), two_entries()[1]]
    edited = roll(running).replace(b"- x 2004712\n", b"- x 2004712\n- by whom?\n--> useless\n")
    for copy in (roll(running), b""):  # without the copy the roll-up of now tells
        with pytest.raises(RollupEditedError, match="  2004712: - by whom\\?") as caught:
            check_unedited("JOBS.md", edited, copy, written)
        (added,) = caught.value.added
        assert (added.job_id, added.lines) == ("2004712", ("- by whom?", "--> useless"))
        assert not caught.value.foreign
    note = move_into(two_entries()[1][1], added.lines, "n")
    assert note == b"##### 2004712 - killed\n- x 2004712\n- by whom?\n--> useless\n"
    with pytest.raises(RollupEditedError, match="notes import") as caught:
        check_unedited("JOBS.md", b"##### 2004713\n- by hand\n", b"", written)
    assert caught.value.foreign


def test_lines_below_no_job_and_lost_lines_are_told() -> None:
    written = roll(two_entries())
    with pytest.raises(RollupEditedError, match="  no job: To do") as caught:
        check_unedited("JOBS.md", written.replace(b"-->\n\n", b"-->\nTo do\n", 1), written, written + b"x")
    assert [added.job_id for added in caught.value.added] == [None]
    with pytest.raises(RollupEditedError, match="lost some of its lines"):
        check_unedited("JOBS.md", written.replace(b"- x 2004712\n", b""), written, written + b"x")


def test_a_verdict_in_the_rollup_takes_the_place_of_the_old_one() -> None:
    note = put_verdict(note_of(), "--> bad: because 18")
    moved = move_into(note, ["--> good: because 9 [cause: agent.horizon=9]", "- more"], "n")
    assert moved == add_bullet(put_verdict(note, "--> good: because 9 [cause: agent.horizon=9]"), "more")


def test_the_page_stands_alone_and_escapes() -> None:
    note = put_verdict(note_of() + b"- <script>alert(1)</script> & more\n", "--> bad: because <b>")
    page = log_page([parse_entry("2004711", note)], "Job log of <lab>", datetime(2026, 2, 3))
    assert "<script>alert" not in page
    assert html.escape("- <script>alert(1)</script> & more") in page
    assert '<article class="bad" id="2004711">' in page
    assert "Job log of &lt;lab&gt;" in page
    assert "http:" not in page and "https:" not in page and "src=" not in page


def test_the_page_draws_the_curves_of_notes_with_evaluations() -> None:
    row = {"return_std": 1.0, "return_min": 0.0, "return_max": 2.0}
    cells = "\n".join(table([{"step": step, "return_mean": step / 10, **row} for step in (10, 20)], "x"))
    page = log_page([parse_entry("7", f"##### 7\n\n{cells}\n".encode())], "t", datetime(2026, 2, 3))
    assert page.count("<svg") == page.count("<polyline") == 1
    assert "http:" not in page
    assert "<svg" not in log_page([parse_entry("8", b"##### 8\n- no table\n")], "t", datetime(2026, 2, 3))


def test_of_an_array_the_tasks_have_an_entry_of_which_something_was_said(tmp_path: Path) -> None:
    for name in ("7", "7_0", "7_1", "7_2", "8_0"):
        (tmp_path / f"{name}.md").write_bytes(replace_machine_part(b"", f"##### {name} - 2026-02-01\n- a job"))
    (tmp_path / "7_1.md").write_bytes(add_bullet((tmp_path / "7_1.md").read_bytes(), "odd"))
    (tmp_path / "7_2.md").write_bytes(put_verdict((tmp_path / "7_2.md").read_bytes(), "--> good: because fine"))
    entries = read_log(tmp_path)[0]
    assert [entry.id for entry in entries] == ["7", "7_1", "7_2", "8_0"]
    assert [entry.id for entry in unjudged(entries)] == ["7", "8_0"]  # its tasks are reviewed with the whole
