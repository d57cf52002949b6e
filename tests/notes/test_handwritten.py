"""Hand-written logs: which lines are a job's, and that nothing of a log is lost on its way into the notes and out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdmpc_lab.errors import NoteError
from tdmpc_lab.notes.adopt import (
    assemble,
    contains_lines,
    entry_of,
    foreign_marker,
    lines_of_no_job,
    log_name,
    merge_entry,
    merge_queue_line,
    place,
    skeleton,
)
from tdmpc_lab.notes.entries import parse_entry
from tdmpc_lab.notes.handwritten import PastedJob, doubtful_lines, heading_id, queue_lines, split_log
from tdmpc_lab.notes.note import put_verdict, replace_machine_part

SEED = (Path(__file__).parent / "fixtures" / "hand_written_log.md").read_bytes()
SEED_JOBS = ["1969941", "1970116", "1971497", "1971498", "1971519", "1971525", "1972025"]
PIECES = [
    *(b"##### 1971498 - 2026-01-23_08-51-48\n", b"##### 1971498\r\n", b"##### 1971519 - killed  \n", b"# 1971498_3\n"),
    *(b"#### Architecture\n", b"###### finer\n", b"```\n", b"```python\n", b"~~~\n", b"- run\n", b"--> fucked\n"),
    *("- Größe, 上\n".encode(), b"\xff\xfe\x00\n", b"\r\n", b"\n\n", b"no line end", b"  ", b"\x0b\x0c"),
    *(b"## 2026 plans\n", b"see <!-- tdmpc-lab:begin -->\n", b" <!-- tdmpc-lab:entry 1 x -->\n"),
]
logs = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=6)), max_size=14).map(b"".join)


def adopt(log: bytes, notes: dict[str, bytes], name: str = "log") -> bytes:
    """Take a log into these notes; what is kept of its other lines."""
    pieces = split_log(log)
    placed = place(pieces, name)
    for entry in placed:
        notes[entry.job_id] = merge_entry(notes.get(entry.job_id, b""), entry)
    return skeleton(pieces, placed)


def give_back(kept: bytes, notes: dict[str, bytes]) -> bytes:
    return assemble(kept, lambda job_id: notes.get(job_id, b""), "log")


def test_the_seven_jobs_of_a_real_log() -> None:
    pieces = split_log(SEED)
    assert [piece.job_id for piece in pieces] == [None, *SEED_JOBS, None]
    assert pieces[-1].content.startswith(b"#### Architecture of TDMPC-2")
    notes: dict[str, bytes] = {}
    kept = adopt(SEED, notes)
    assert b"TOTAL TRAINABLE PARAMETERS: 10,674,023" in kept
    assert give_back(kept, notes) == SEED
    entries = [parse_entry(job_id, notes[job_id]) for job_id in SEED_JOBS]
    assert [entry.verdict.judgement if entry.verdict else None for entry in entries] == ["bad", "bad", *[None] * 5]
    assert [entry.state for entry in entries] == [None, None, None, None, "killed", None, None]
    assert "Horizon 18" in entries[0].bullets
    assert entries[0].time is not None and entries[0].time.isoformat() == "2026-01-22T22:05:49"
    assert all(entry.imported and entry.ended for entry in entries)


@settings(deadline=None, max_examples=400)
@given(log=logs.filter(lambda log: foreign_marker(log) is None))
def test_every_log_comes_out_as_it_went_in_and_twice_is_once(log: bytes) -> None:
    assert b"".join(piece.content for piece in split_log(log)) == log
    notes: dict[str, bytes] = {"1971519": replace_machine_part(b"", "##### 1971519\n- of the tool") + b"my words"}
    before = dict(notes)
    kept = adopt(log, notes)
    assert give_back(kept, notes) == log
    assert notes["1971519"].startswith(before["1971519"])
    once = dict(notes)
    assert adopt(log, notes) == kept
    assert notes == once


@settings(deadline=None, max_examples=200)
@given(
    log=logs.filter(lambda log: foreign_marker(log) is None), more=logs.filter(lambda log: foreign_marker(log) is None)
)
def test_a_log_that_grew_loses_nothing(log: bytes, more: bytes) -> None:
    """Another state of the log: what only the older one had stays in the notes too."""
    notes: dict[str, bytes] = {}
    adopt(log, notes)
    old = {job_id: entry_of(note, "log") or b"" for job_id, note in notes.items()}
    kept = adopt(more, notes)
    for job_id, lines in old.items():
        assert all(line.strip() in notes[job_id] for line in lines.split(b"\n"))
    for piece in split_log(more):
        where = kept if piece.job_id is None else notes[piece.job_id]
        assert all(line.strip() in where for line in piece.content.split(b"\n"))


def test_a_log_that_only_grew_comes_out_as_it_is_now() -> None:
    notes: dict[str, bytes] = {}
    adopt(SEED, notes)
    grown = SEED.replace(
        b"- run without shaping and back prop\n", b"- run without shaping and back prop\n--> useless\n"
    )
    grown = grown.replace(b"#### Architecture", b"##### 1972400\n- new\n\n#### Architecture")
    kept = adopt(grown, notes)
    assert give_back(kept, notes) == grown
    assert contains_lines(lines_of_no_job(kept), lines_of_no_job(adopt(SEED, {})))


def test_words_and_verdicts_of_later_come_out_with_their_entry() -> None:
    notes: dict[str, bytes] = {}
    kept = adopt(b"##### 1971498\n- run\n\n##### 1971519 - killed\n- x", notes)
    notes["1971498"] = put_verdict(notes["1971498"], "--> good: because it wins")
    notes["1971519"] = put_verdict(notes["1971519"], "--> unclear: because killed")
    out = give_back(kept, notes)
    first = b"##### 1971498\n- run\n--> good: because it wins\n\n"
    assert out == first + b"##### 1971519 - killed\n- x\n--> unclear: because killed"
    assert adopt(out, notes) == kept
    assert give_back(kept, notes) == out  # and no second verdict


def test_an_entry_that_is_gone_is_told() -> None:
    notes: dict[str, bytes] = {}
    kept = adopt(SEED, notes)
    del notes["1971498"]
    with pytest.raises(NoteError, match="the entry of 1971498 in log is gone"):
        give_back(kept, notes)


@pytest.mark.parametrize(
    ("line", "job_id"),
    [
        ("##### 1969941 - 2026-01-22_22-05-49", "1969941"),
        ("##### 1972025 ", "1972025"),
        ("## 1971498_3: second try", "1971498_3"),
        ("# Job 1971498, again", "1971498"),
        ("##### local-20260203-091422-123 - 2026-02-03_09-14-22", "local-20260203-091422-123"),
        ("##### 12 - 2026-02-03_09-14-22", "12"),
        ("##### 12 - killed", "12"),
        ("## 2026", None),
        ("## 2026-01-22 plans", None),
        ("## 3 things to do", None),
        ("## 2026 - what comes next", None),
        ("##### 19699412abc", None),
        ("1969941 - no heading", None),
        ("#1969941", None),
        ("#### Jobs", None),
    ],
)
def test_what_is_a_jobs_heading(line: str, job_id: str | None) -> None:
    assert heading_id(line) == job_id


def test_headings_in_a_fence_are_text_and_an_open_fence_is_none() -> None:
    fenced = b"##### 1971498\n```\n##### 1971519\n```\n- more\n"
    assert [piece.job_id for piece in split_log(fenced)] == ["1971498"]
    assert [piece.job_id for piece in split_log(b"```\n##### 1971519\n- x\n")] == [None, "1971519"]


QUEUE = """\
```
             JOBID PARTITION     NAME     USER ST       TIME  NODES NODELIST(REASON)
           1971498       day hockey_s  stud421  R    3:12:05      1 tcml-node37 -> without shaping
         1971525_3      week hockey_s  stud421 PD       0:00      1 (Priority)   --> horizon 5
    1971600_[4-9%2]      week hockey_s  stud421 PD       0:00      1 (Resources)
           1971601       day     bash  stud421 CG 1-02:03:04      1 tcml-node1
```
 1971498 is a number in a sentence about 3:12:05
"""


def test_pasted_squeue_lines() -> None:
    assert queue_lines(QUEUE.encode()) == [
        PastedJob("1971498", "day hockey_s stud421 R 3:12:05 1 tcml-node37", "without shaping"),
        PastedJob("1971525_3", "week hockey_s stud421 PD 0:00 1 (Priority)", "horizon 5"),
        PastedJob("1971600", "week hockey_s stud421 PD 0:00 1 (Resources)", ""),
        PastedJob("1971601", "day bash stud421 CG 1-02:03:04 1 tcml-node1", ""),
    ]
    assert b"".join(piece.content for piece in split_log(QUEUE.encode())) == QUEUE.encode()


def test_a_queue_line_makes_an_entry_or_adds_what_it_says() -> None:
    line = PastedJob("1971498", "day hockey_s stud421 R 3:12:05 1 tcml-node37", "without shaping")
    new = merge_queue_line(b"", line, "n")
    assert new == b"##### 1971498\n- without shaping\n- squeue: day hockey_s stud421 R 3:12:05 1 tcml-node37\n"
    assert merge_queue_line(new, line, "n") == new
    assert merge_queue_line(b"##### 1971498\n- run\n", line, "n") == b"##### 1971498\n- run\n- without shaping\n"


@pytest.mark.parametrize(
    "text",
    [
        *("TODO\n- x", "todo: x\ntodo: y", "still to do: a, b", "Open points\n\n\u2022 a", "Questions\n? a"),
        *("Notes to self:\n- buy milk", "**Next steps**\n- a", "Offene Punkte:\n- z", "Ideas\n- z"),
    ],
)
def test_a_list_that_closes_the_log(text: str) -> None:
    (found,) = doubtful_lines(f"##### 1980001\n- a\n--> good\n\n{text}\n".encode())
    assert (found.job_id, found.owner) == (None, "1980001")


@pytest.mark.parametrize(
    ("stem", "name"), [("seed-notes", "seed-notes"), ("my notes (2)", "my-notes-2"), ("../x", "x"), ("a.b", "a.b")]
)
def test_a_logs_name_fits_a_file_name(stem: str, name: str) -> None:
    assert log_name(stem) == name
    assert log_name("上").startswith("log-")


LOOSE = b"""# Log

##### 1980001 - 2026-01-23_08-51-48
- run without shaping
- 1980001 was slow
- 2000000 steps, batch 4096
**1980002** 2026-01-24: horizon 9
--> bad: because it stagnates
1980003: horizon 5
- 1980004 backprop
1980005 test slow root R 0:11 1 node1 -> pasted

##### 1980006
- as 1980001
- [ ] not at the end

```
1980007: in a fence
```

##### **1980008** in a bold heading

TODO
- [ ] lr 1e-4
- [ ] horizon 3
"""


def test_lines_that_seem_to_begin_an_entry_are_found() -> None:
    found = doubtful_lines(LOOSE)
    assert [(one.line, one.job_id, one.owner) for one in found] == [
        (7, "1980002", "1980001"),
        (9, "1980003", "1980001"),
        (10, "1980004", "1980001"),
        (21, "1980008", None),
        (23, None, None),
    ]
    pieces = split_log(LOOSE, {one.offset: one.job_id for one in found})
    assert b"".join(piece.content for piece in pieces) == LOOSE
    assert [piece.job_id for piece in pieces] == [
        *(None, "1980001", "1980002", "1980003", "1980004", "1980006", "1980008", None),
    ]
    assert b"stagnates" in pieces[2].content
    assert pieces[-1].content.startswith(b"TODO")


@pytest.mark.parametrize(
    "line",
    [
        *("* 1980009", "> 1980009 x", "Job 1980009: x", "1. 1980009", "| 1980009 |", "[1980009]", "_1980009_ x"),
        *("1980009. x", "1980009/ x", "•1980009 x", "→ 1980009", "– 1980009 x", "1980009, 1980010 both bad"),
        *("job-id 1980009, more", "JobID=1980009", "SLURM 1980009", "Experiment: 1980009", "slurm-1980009.out"),
        *("<b>1980009</b>", "====1980009====", "2025-05-02 1980009 text", "\\#\\#\\# 1980009", "- [x] 1980009"),
    ],
)
def test_forms_of_an_id_at_the_beginning_of_a_line(line: str) -> None:
    (found,) = doubtful_lines(f"##### 1980001\n- a\n{line}\n".encode())
    assert found.job_id == "1980009"


@pytest.mark.parametrize(
    "line",
    [
        *("- 50000 steps", "- 3000000 steps", "1980009.5", "- as 1980009", "1980009 day a b R 0:10"),
        *("steps 1980009", "1980009/2000000", "1980009 % of it", "seed 1980009", "x1980009", "runs 1980009"),
    ],
)
def test_what_is_no_beginning_of_an_entry(line: str) -> None:
    assert doubtful_lines(f"##### 1980001\n- a\n{line}\n".encode()) == []
