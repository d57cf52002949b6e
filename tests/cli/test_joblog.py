"""`notes` at the command line: the log, the review, the roll-up, the page, hand-written logs in and out."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tdmpc_lab.app.joblog.adopt import import_log
from tdmpc_lab.app.joblog.write import write_note
from tdmpc_lab.cli.main import main
from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord, write_record
from tdmpc_lab.notes.note import END

SEED = Path(__file__).parents[1] / "notes" / "fixtures" / "hand_written_log.md"
SEED_JOBS = ["1969941", "1970116", "1971497", "1971498", "1971519", "1971525", "1972025"]
ID = "local-20260203-091422-123"


def make_job(project: Project, job_id: str = ID, *, finished: bool = True) -> None:
    paths = project.job(job_id)
    paths.folder.mkdir(parents=True)
    record = JobRecord(
        id=job_id, experiment="quick", group="g", seed=1, cluster="local", spec_file="experiments/quick.yaml",
        submitted_at="2026-02-03T09:14:22+01:00", steps_total=100, about="a few steps", env_id="Pendulum-v1",
    )  # fmt: skip
    write_record(paths, record)
    append_jsonl(paths.events, {"event": "started", "time": "2026-02-03T09:14:23+01:00", "host": "n", "attempt": 1})
    write_note(project, paths, None)
    if finished:
        append_jsonl(paths.events, {"event": "finished", "time": "2026-02-03T09:15:23+01:00", "step": 100})
        write_note(project, paths, None)


@pytest.fixture
def lab(project: Path) -> Project:
    return Project(project)


@pytest.fixture
def full(lab: Project, capsys: pytest.CaptureFixture[str]) -> Project:
    """The hand-written log, and a finished job."""
    make_job(lab)
    assert main(["notes", "import", str(SEED)]) == 0
    capsys.readouterr()
    return lab


def state_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    capsys.readouterr()
    assert main(["notes", "--json", *words]) == 0
    return [entry["id"] for entry in json.loads(capsys.readouterr().out)]


def test_a_log_in_and_out_again(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notes", "import", str(SEED), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert [(job["id"], job["what"]) for job in done["jobs"]] == [(job_id, "new") for job_id in SEED_JOBS]
    assert "TOTAL TRAINABLE PARAMETERS" in (lab.imported_logs / "hand_written_log.md").read_text()
    assert main(["notes", "export", "--out", "out.md"]) == 0
    assert Path("out.md").read_bytes() == SEED.read_bytes()
    before = state_of(lab.root)
    capsys.readouterr()
    assert main(["notes", "import", str(SEED), "--json"]) == 0
    assert {job["what"] for job in json.loads(capsys.readouterr().out)["jobs"]} == {"unchanged"}
    assert state_of(lab.root) == before
    assert not (lab.jobs / "1971498").exists()


def test_export_prints_the_very_bytes(lab: Project, tmp_path: Path) -> None:
    log = tmp_path / "log.md"
    log.write_bytes(b"##### 1971498 - killed \r\n- Gr\xf6\xdfe\r\n\r\n## Ende")
    import_log(lab, log)
    command = [sys.executable, "-m", "tdmpc_lab", "notes", "export"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == log.read_bytes()


def test_an_id_that_exists_is_merged(lab: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_job(lab)
    main(["note", ID, "mine"])
    before = lab.note(ID).read_bytes()
    log = tmp_path / "log.md"
    log.write_text(f"##### {ID} - 2026-02-03\n- as I saw it\n--> useless\n##### 1971498\n- other\n")
    capsys.readouterr()
    assert main(["notes", "import", str(log)]) == 0
    assert f"  {ID}  merged\n  1971498  new" in capsys.readouterr().out
    after = lab.note(ID).read_bytes()
    assert after.startswith(before) and after.endswith(b"- as I saw it\n--> useless\n")
    write_note(lab, lab.job(ID), None)
    assert lab.note(ID).read_bytes() == after
    assert main(["notes", "import", str(log)]) == 0
    assert lab.note(ID).read_bytes() == after
    assert listed(capsys, "--verdict", "bad") == [ID]


def test_a_log_that_went_on_is_taken_in_again(
    full: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["note", "1971525", "words of later"])
    grown = tmp_path / SEED.name
    text = SEED.read_bytes().replace(b"#### Architecture", b"##### 1972400\n- one more\n\n#### Architecture")
    grown.write_bytes(text)
    assert main(["notes", "import", str(grown)]) == 0
    assert (full.imported_logs / "hand_written_log.md").exists()
    assert "words of later" in full.note("1971525").read_text()
    assert "1972400" in listed(capsys)
    main(["verdict", "1972025", "bad", "no", "--cause", "agent.horizon=18"])
    before = state_of(full.notes)
    assert main(["notes", "import", str(SEED)]) == 0  # the older state of it: nothing new
    assert state_of(full.notes) == before


def test_pasted_squeue_lines_become_entries(lab: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "queue.md"
    log.write_text(
        "# today\n"
        " JOBID PARTITION NAME USER ST TIME NODES NODELIST(REASON)\n"
        "1972500 day hockey_s stud421 R 3:12:05 1 tcml-node37 -> with backprop\n"
        "1971498 day hockey_s stud421 R 3:12:05 1 tcml-node37 -> a second look\n"
        "\n##### 1971498\n- run\n"
    )
    assert main(["notes", "import", str(log)]) == 0
    assert "- with backprop\n" in lab.note("1972500").read_text()
    assert lab.note("1971498").read_text().endswith("- run\n- a second look\n")
    before = state_of(lab.notes)
    assert main(["notes", "import", str(log)]) == 0
    assert state_of(lab.notes) == before
    assert listed(capsys, "--text", "backprop") == ["1972500"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["notes", "import", "none.md"], "none.md: can't be read: No such file"),
        (["notes", "import", "ours.md"], "ours.md:2: this line looks like one that tdmpc-lab writes itself"),
        (["notes", "export"], "no log was imported yet"),
        (["notes", "--since", "yesterday"], "'yesterday' is no time"),
    ],
)
def test_what_is_refused(lab: Project, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    Path("ours.md").write_text("##### 1971498\n<!-- tdmpc-lab:end -->\n")
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not lab.notes.exists()


def test_an_unknown_export_names_the_known_ones(full: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notes", "export", "other"]) == 2
    assert "there are: hand_written_log" in capsys.readouterr().err
    full.note("1971498").unlink()
    assert main(["notes", "export"]) == 1
    assert "the entry of 1971498" in capsys.readouterr().err


def test_the_log_and_its_filters(full: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys) == [*SEED_JOBS, ID]
    assert listed(capsys, "--verdict", "bad") == SEED_JOBS[:2]
    assert listed(capsys, "--state", "killed") == ["1971519"]
    assert listed(capsys, "--experiment", "quick", "--state", "completed") == [ID]
    assert listed(capsys, "--since", "2026-01-23", "--until", "2026-01-23") == SEED_JOBS[2:]
    assert listed(capsys, "--unjudged") == [*SEED_JOBS[2:], ID]
    assert main(["notes"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("##### 1969941 - 2026-01-22_22-05-49\n- simple fucking run")
    assert text.endswith("- COMPLETED in 1:00 on n, step 100\n")
    assert main(["notes", "--text", "nowhere"]) == 0
    assert "no entry is like that; the log has 8" in capsys.readouterr().err


def test_states_are_those_of_now_and_a_lost_note_is_no_lost_job(
    lab: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    make_job(lab, finished=False)
    append_jsonl(lab.job(ID).events, {"event": "failed", "time": "2026-02-03T09:15:23+01:00", "cause": "NaN at step 7"})
    assert main(["notes"]) == 0
    assert "- FAILED after 1:00 on n: NaN at step 7" in capsys.readouterr().out
    lab.note(ID).unlink()
    assert listed(capsys, "--state", "failed", "--experiment", "quick") == [ID]
    assert main(["note", ID, "seen"]) == 0
    assert lab.note(ID).read_text().endswith("- seen\n")


def test_the_rollup_follows_and_an_edited_one_is_left_alone(full: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verdict", ID, "good", "it swings"]) == 0
    text = full.rollup.read_text()
    assert text.endswith("- COMPLETED in 1:00 on n, step 100\n--> good: it swings\n")
    edited = text.replace("- run with backward prop\n", "- run with backward prop\n- and a new seed\n")
    full.rollup.write_text(edited)
    capsys.readouterr()
    assert main(["note", ID, "more"]) == 0
    assert "notes/JOBS.md was edited, and is left alone" in capsys.readouterr().err
    assert full.rollup.read_text() == edited
    assert main(["notes", "--rollup"]) == 1
    assert "  1971497: - and a new seed" in capsys.readouterr().err
    assert full.rollup.read_text() == edited
    assert main(["notes", "--rollup", "--move", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rollup": "notes/JOBS.md", "moved_to": ["1971497"]}
    assert full.note("1971497").read_text().rstrip().endswith("- run with backward prop\n- and a new seed")
    assert "- and a new seed\n" in full.rollup.read_text()
    assert main(["notes", "--rollup"]) == 0
    full.rollup.write_text("all by hand\n")
    assert main(["notes", "--rollup", "--move"]) == 1
    assert full.rollup.read_text() == "all by hand\n"


def test_the_page(full: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notes", "--html", "log.html"]) == 0
    page = Path("log.html").read_text()
    assert page.count("<article") == 8 and page.count('class="bad"') == 2
    assert main(["notes", "--html", "none/log.html"]) == 3


class Terminal(io.StringIO):
    """A standard input or output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_review_shows_each_job_and_takes_its_verdict(full: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        "s",
        *("b", "too noisy", "agent.horzon=18", "b", "too noisy", "agent.horizon=18"),  # a slip, then again
        *("", "u", "", "n", "killed by whom?", "s"),  # no answer; no reason: no verdict; words
        "q",
    ]
    shown, errors = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal("\n".join(answers) + "\n"))
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(sys, "stderr", errors)
    assert main(["notes", "--unjudged"]) == 0
    text = shown.getvalue()
    assert "1 of 6\n\n##### 1971497" in text and "4 of 6" in text and "5 of 6" not in text
    assert "--> bad: too noisy [cause: agent.horizon=18]" in text
    assert "did you mean 'horizon'?" in errors.getvalue()
    assert text.endswith("1 judged, 5 left\n")
    assert f"--> bad: too noisy [cause: agent.horizon=18]\n{END}\n" in full.note("1971498").read_text()
    assert "- killed by whom?\n" in full.note("1971519").read_text()
    assert "-->" not in full.note("1971519").read_text().replace("-->\n", "")
    assert "- killed by whom?\n" in full.rollup.read_text()


def test_on_a_terminal_the_newest_are_shown(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.notes.mkdir()
    for number in range(60):
        lab.note(str(1971000 + number)).write_text(f"##### {1971000 + number}\n- x\n--> failed\n")
    for words, count in ((["notes"], 50), (["notes", "--all"], 60), (["notes", "--verdict", "bad"], 60)):
        shown = Terminal()
        monkeypatch.setattr(sys, "stdout", shown)
        assert main(words) == 0
        assert shown.getvalue().count("##### 1971") == count


AT_ONCE = """
import sys
from pathlib import Path
from tdmpc_lab.app.joblog.write import refresh_rollup
from tdmpc_lab.app.joblog.edit import add_words
from tdmpc_lab.jobs.paths import Project
number, project = int(sys.argv[1]), Project(Path(sys.argv[2]))
sys.stdin.read(1)
job = str(1971000 + number)
project.note(job).write_text(f"##### {job}\\n")
add_words(project, job, f"words of {number}")
refresh_rollup(project)
"""


def test_jobs_that_end_at_once_all_stand_in_the_rollup(lab: Project) -> None:
    lab.notes.mkdir()
    running = [
        subprocess.Popen([sys.executable, "-c", AT_ONCE, str(n), str(lab.root)], stdin=subprocess.PIPE)
        for n in range(10)
    ]
    try:
        for process in running:
            assert process.stdin is not None
            process.stdin.write(b"x")
            process.stdin.close()
        assert [process.wait(timeout=120) for process in running] == [0] * 10
    finally:
        for process in running:
            process.kill()
            process.wait()
    lines = lab.rollup.read_text().splitlines()
    assert [line for line in lines if line.startswith("-")] == [f"- words of {n}" for n in range(10)]


def test_a_cause_in_the_reason_is_checked_and_counts(full: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verdict", "1971498", "bad", "too far [cause: agent.horzon=18]"]) == 2
    assert "did you mean 'horizon'" in capsys.readouterr().err
    assert main(["verdict", "1971498", "bad", "[cause: agent.horizon=18]"]) == 2
    assert "a verdict needs its reason" in capsys.readouterr().err
    words = ["too far [cause: agent.horizon=18]", "--cause", "train.batch_size=8, agent.horizon=18"]
    assert main(["verdict", "1971498", "bad", *words]) == 0
    line = "--> bad: too far [cause: train.batch_size=8, agent.horizon=18]"
    assert line in full.note("1971498").read_text().splitlines()


@pytest.mark.parametrize("words", [["note", ID, "mine"], ["verdict", ID, "bad", "mine"]])
def test_an_emptied_note_is_made_anew_before_words_are_added(lab: Project, words: list[str]) -> None:
    make_job(lab)
    lab.note(ID).write_bytes(b"")
    assert main(words) == 0
    text = lab.note(ID).read_text()
    assert text.startswith("<!-- tdmpc-lab:begin") and "mine" in text
    write_note(lab, lab.job(ID), None)  # the job can continue writing its part
    assert "mine" in lab.note(ID).read_text()


def test_the_rollup_tells_of_notes_that_are_broken(full: Project, capsys: pytest.CaptureFixture[str]) -> None:
    full.note("1971498").write_text("<!-- tdmpc-lab:begin -->\n- x\n")
    full.note("1971525").unlink()
    full.note("1971525").mkdir()
    capsys.readouterr()
    assert main(["notes", "--rollup"]) == 0
    told = capsys.readouterr().err
    assert "1971498.md: the end marker is missing" in told and "1971525.md: the note can't be read" in told


def test_a_note_that_could_not_be_written_is_when_it_is_asked_for(
    lab: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    make_job(lab)
    lab.note(ID).unlink(missing_ok=True)
    assert main(["note", ID]) == 0
    assert f"##### {ID} - " in capsys.readouterr().out
    assert lab.note(ID).exists()


LOOSE = """\
##### 1980001 - 2026-01-23_08-51-48
- run without shaping
**1980002** 2026-01-24: horizon 9
--> bad: because it stagnates
1980003: horizon 5
- 1980004 backprop

TODO:
- [ ] lr 1e-4
"""


def test_lines_that_look_like_job_ids_are_asked_about(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    log = lab.root / "loose.md"
    log.write_text(LOOSE)
    assert main(["notes", "import", "loose.md"]) == 2
    said = capsys.readouterr().err
    assert "loose.md: 3 lines look like job ids and a list at the end looks as if it belonged to no job" in said
    assert "line 3: **1980002** 2026-01-24: horizon 9  (part of 1980001 as it is)" in said
    assert "--split" in said
    assert not lab.notes.exists()
    assert main(["notes", "import", "loose.md", "--split"]) == 0
    assert {path.stem for path in lab.notes.glob("*.md")} >= {"1980001", "1980002", "1980003", "1980004"}
    capsys.readouterr()
    assert main(["notes", "--verdict", "bad", "--json"]) == 0
    assert [entry["id"] for entry in json.loads(capsys.readouterr().out)] == ["1980002"]
    assert "TODO" not in lab.note("1980004").read_text()
    assert main(["notes", "import", "loose.md"]) == 0  # the same again: nothing to ask
    log.write_text(LOOSE.replace("TODO:", "##### 1980005\n- more\n\nTODO:"))
    assert main(["notes", "import", "loose.md"]) == 0  # it went on: what was said of its lines holds
    assert "more" in lab.note("1980005").read_text()
    capsys.readouterr()
    assert main(["notes", "export"]) == 0
    assert capsys.readouterr().out == log.read_text()


def test_a_log_may_be_taken_in_as_it_is(lab: Project) -> None:
    (lab.root / "loose.md").write_text(LOOSE)
    assert main(["notes", "import", "loose.md", "--as-is"]) == 0
    assert not lab.note("1980002").exists()
    assert "TODO" in lab.note("1980001").read_text()
