"""Configs against the job log: which settings are blamed, what is said, who is asked, what is kept."""

from __future__ import annotations

import json
import os
import pty
from pathlib import Path

import pytest
from app_fixtures import write_specs

from tdmpc_lab.app.checks import blamed as guard
from tdmpc_lab.app.checks.blamed import find_blamed
from tdmpc_lab.app.submit import submit
from tdmpc_lab.app.submit.code import JobCode
from tdmpc_lab.app.submit.submit import JobPlan, prepare
from tdmpc_lab.cli import submit as commands
from tdmpc_lab.cli.main import main
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import read_record

QUICK = "experiments/quick.yaml"
SEED_LOG = Path(__file__).parents[2] / "notes" / "fixtures" / "hand_written_log.md"
QUIET = ("--no-lint", "temporal-weight")
WORDS = ("1969941 and 1970116", "--> fucked because 18! and config error")


@pytest.fixture
def lab(project: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(submit, "_estimate", lambda *_: None)  # of a dry run: it would measure for seconds
    write_specs(project)
    return Project(project)


@pytest.fixture
def seed(lab: Project) -> Project:
    """A project that has taken in the hand-written log."""
    assert main(["notes", "import", str(SEED_LOG)]) == 0
    return lab


def judge(lab: Project, job: str, verdict: str, *bullets: str, imported: bool = False) -> None:
    """A note as it stands after an import, or as somebody wrote it."""
    lab.notes.mkdir(exist_ok=True)
    mark = "<!-- tdmpc-lab:imported log.md -->\n" if imported else ""
    lines = "".join(f"- {text}\n" for text in bullets)
    (lab.notes / f"{job}.md").write_text(f"##### {job}\n{mark}{lines}{verdict}\n")


def found(lab: Project, *overrides: str) -> list[str]:
    return [blamed.setting for blamed in find_blamed(lab, [load_spec(lab.root / QUICK, overrides)]) if not blamed.good]


def test_the_hand_written_log_warns_of_horizon_18_alone(seed: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert found(seed, "agent.horizon=9") == []
    assert found(seed, "agent.horizon=18") == ["agent.horizon=18"]
    capsys.readouterr()
    assert main(["submit", QUICK, "--cluster", "local", "--dry-run", "--json", "agent.horizon=18", *QUIET]) == 0
    output = capsys.readouterr()
    (warning,) = json.loads(output.out)["jobs"][0]["warnings"]
    for words in WORDS:
        assert words in warning
        assert words in output.err
    assert main(["submit", QUICK, "--cluster", "local", "--dry-run", "agent.horizon=9"]) == 0
    assert "judged" not in capsys.readouterr().err


def test_a_cause_counts_for_every_way_to_write_its_value(lab: Project) -> None:
    judge(lab, "11", "--> bad: because of the reward [cause: agent.lr=0.0003, reward.scale=2]", "Horizon 7")
    assert found(lab, "agent.lr=3e-4", "agent.horizon=7") == ["agent.lr=0.0003"]
    assert found(lab, "agent.lr=3e-4", "reward.scale=2.0") == ["agent.lr=0.0003", "reward.scale=2"]
    assert found(lab, "agent.lr=1e-3") == []


def test_bullets_count_for_imported_jobs_and_verdicts_for_all(lab: Project) -> None:
    judge(lab, "11", "--> bad: nothing learned", "horizon: 7", "lr 1e-2")
    assert found(lab, "agent.horizon=7", "agent.lr=0.01") == []
    judge(lab, "12", "--> bad: nothing learned", "horizon: 7", "lr 1e-2", imported=True)
    assert found(lab, "agent.horizon=7", "agent.lr=0.01") == ["agent.horizon=7", "agent.lr=0.01"]
    judge(lab, "12", "--> bad: nothing learned, lr far too high", "horizon: 7", "lr 1e-2", imported=True)
    assert found(lab, "agent.horizon=7", "agent.lr=0.01") == ["agent.lr=0.01"]
    judge(lab, "12", "--> broken by horizon 6", "horizon: 7")
    assert found(lab, "agent.horizon=6") == ["agent.horizon=6"]


def test_a_switch_counts_only_where_the_verdict_names_it(lab: Project) -> None:
    judge(lab, "11", "--> useless", "no backprop", imported=True)
    assert found(lab) == []
    judge(lab, "12", "--> useless without backward prop", imported=True)
    assert found(lab) == ["reward.backprop=off"]


def test_a_good_job_with_the_setting_ends_the_warning(seed: Project, capsys: pytest.CaptureFixture[str]) -> None:
    paths = seed.job("1980001")
    paths.folder.mkdir(parents=True)
    paths.resolved.write_text(dump_yaml(load_spec(seed.root / QUICK, ["agent.horizon=18"]).spec))
    judge(seed, "1980001", "--> good: because it learned at last")
    assert found(seed, "agent.horizon=18") == []
    capsys.readouterr()
    assert main(["submit", QUICK, "--cluster", "local", "--dry-run", "agent.horizon=18"]) == 0
    assert "but it was judged good in 1980001" in capsys.readouterr().err


def test_of_a_sweep_it_is_said_once_and_kept_for_its_points(
    seed: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[JobPlan] = []
    monkeypatch.setattr(commands, "_launch", lambda _project, given, *_: plans.extend(given) or 0)
    sweep = ["sweep.agent.horizon=[5, 18]", "sweep.train.seed=[0, 1, 2]", *QUIET]
    assert main(["submit", QUICK, "--cluster", "local", *sweep]) == 0
    told = capsys.readouterr().err
    assert told.count(WORDS[1]) == 1
    assert "3 of 6 jobs: " in told
    assert "nobody can be asked here" in told
    assert [bool(plan.warned) for plan in plans] == [plan.item.spec.agent.horizon == 18 for plan in plans]


def test_the_warning_stands_in_record_and_note(seed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[JobPlan] = []
    monkeypatch.setattr(commands, "_launch", lambda _project, given, *_: plans.extend(given) or 0)
    assert main(["submit", QUICK, "--cluster", "local", "--yes", "agent.horizon=18", *QUIET]) == 0
    paths = prepare(seed, plans[0], "local", JobCode(commit=None, dirty=None, diff=None, snapshot=None), None, 1)
    assert read_record(paths).warned == plans[0].warned
    (line,) = [line for line in seed.note(paths.id).read_text().splitlines() if line.startswith("- warning:")]
    for words in WORDS:
        assert words in line


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("\n", 2), ("n\n", 2)])
def test_at_a_terminal_it_asks(seed: Project, typed: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = []
    monkeypatch.setattr(commands, "_launch", lambda _project, plans, *_: launched.append(len(plans)) or 0)
    there, here = pty.openpty()
    os.write(there, typed.encode())
    with os.fdopen(here, closefd=False) as stdin, os.fdopen(here, "w") as stderr:
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stderr", stderr)
        assert main(["submit", QUICK, "--cluster", "local", "agent.horizon=18"]) == code
        assert main(["submit", QUICK, "--cluster", "local", "agent.horizon=18", "--yes"]) == 0
    os.close(there)
    assert len(launched) == (2 if code == 0 else 1)
    assert not any(seed.jobs.glob("local-*"))


def test_check_shows_it(seed: Project, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["check", QUICK, "--cluster", "local", "agent.horizon=18", "--obs-dim", "3", "--action-dim", "1"]) == 0
    assert f'warning: agent.horizon=18 was judged bad in {WORDS[0]}: "{WORDS[1]}"' in capsys.readouterr().err


def test_broken_notes_do_not_stop_a_submit(seed: Project) -> None:
    (seed.notes / "12.md").write_bytes(b"<!-- tdmpc-lab:begin -->\n--> bad: \xff [cause: agent.nothing=1]\n")
    (seed.notes / "13.md").write_text("--> bad: [cause: agent.nothing=1, agent.horizon=-1, agent.horizon=many]\n")
    assert found(seed, "agent.horizon=18") == ["agent.horizon=18"]


def test_of_thousands_of_notes_few_are_parsed_and_few_configs_read(
    lab: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed, read = [], []
    for number in range(30):
        judge(lab, str(2_000_000 + number), "- nothing said yet")
        (folder := lab.job(str(2_100_000 + number)).folder).mkdir(parents=True)
        horizon = 18 if number % 2 else 9
        (folder / "resolved.yaml").write_text(dump_yaml(load_spec(lab.root / QUICK, [f"agent.horizon={horizon}"]).spec))
        judge(lab, folder.name, "--> good: because it swings")
    judge(lab, "2200000", "--> bad: because far [cause: agent.horizon=18]")
    parse, load = guard.parse_entry, guard.load_resolved
    monkeypatch.setattr(guard, "parse_entry", lambda job, note: parsed.append(job) or parse(job, note))
    monkeypatch.setattr(guard, "load_resolved", lambda path: read.append(path) or load(path))
    (blamed,) = find_blamed(lab, [load_spec(lab.root / QUICK, ["agent.horizon=18"])])
    assert [entry.id for entry in blamed.good] == ["2100023", "2100025", "2100027", "2100029"]
    assert (len(parsed), len(read)) == (31, 4)


@pytest.mark.parametrize(
    "note",
    [
        b"\xef\xbb\xbf--> useless, horizon 18\n",
        b"##### 2000000\r\n   --> useless, horizon 18\r\n",
        b"<!-- tdmpc-lab:begin -->\n<!-- tdmpc-lab:end -->--> useless, horizon 18",
        b"x\n---> useless, horizon 18",
    ],
)
def test_verdicts_are_found_wherever_they_stand(lab: Project, note: bytes) -> None:
    lab.notes.mkdir(exist_ok=True)
    (lab.notes / "2000000.md").write_bytes(note)
    assert found(lab, "agent.horizon=18") == ["agent.horizon=18"]
