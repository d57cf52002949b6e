"""`note` and `verdict` at the command line: what lands in the note, in MLflow, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tdmpc_lab.app.joblog.write import write_array_note, write_note
from tdmpc_lab.cli.main import main
from tdmpc_lab.config.schema import AgentConfig, EnvConfig, SlurmConfig, Spec
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord, write_record
from tdmpc_lab.notes.note import END

ID = "local-20260203-091422-123"


def make_job(project: Project, job_id: str = ID) -> str:
    """A finished job, as it leaves its folder and its note."""
    paths = project.job(job_id)
    paths.folder.mkdir(parents=True)
    record = JobRecord(
        id=job_id, experiment="quick", group="g", seed=1, cluster="local", spec_file="experiments/quick.yaml",
        submitted_at="2026-02-03T09:14:22+01:00", steps_total=100, about="a few steps", env_id="Pendulum-v1",
    )  # fmt: skip
    write_record(paths, record)
    append_jsonl(paths.events, {"event": "started", "time": "2026-02-03T09:14:23+01:00", "host": "n", "attempt": 1})
    append_jsonl(paths.events, {"event": "finished", "time": "2026-02-03T09:15:23+01:00", "step": 100, "attempt": 1})
    write_note(project, paths, None)
    return job_id


@pytest.fixture
def lab(project: Path) -> Iterator[Project]:
    found = Project(project)
    make_job(found)
    yield found


def test_words_are_added_below_the_block(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = lab.note(ID).read_bytes()
    assert main(["note", ID, "the puck", "sticks"]) == 0
    assert main(["note", "last", "zweitens: größer"]) == 0
    assert lab.note(ID).read_bytes() == before + "- the puck sticks\n- zweitens: größer\n".encode()
    capsys.readouterr()
    assert main(["note", ID]) == 0
    assert capsys.readouterr().out.endswith("- zweitens: größer\n")
    assert main(["note", ID, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"].endswith("- zweitens: größer\n")


def test_a_verdict_is_the_last_line_of_the_block(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    main(["note", ID, "mine"])
    assert main(["verdict", ID, "bad", "because it looks too far", "--cause", "agent.horizon=18"]) == 0
    line = "--> bad: because it looks too far [cause: agent.horizon=18]"
    assert f"\n{line}\n{END}\n\n- mine\n" in lab.note(ID).read_text()
    write_note(lab, lab.job(ID), None)
    assert f"\n{line}\n{END}\n\n- mine\n" in lab.note(ID).read_text()
    capsys.readouterr()
    assert main(["verdict", ID, "good", "it", "wins", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["verdict"], said["because"], said["causes"]) == ("good", "it wins", [])
    text = lab.note(ID).read_text()
    assert text.count("-->") == 3  # the ends of the two markers, and one verdict
    assert f"\n--> good: it wins\n{END}\n\n- mine\n" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verdict", ID, "bad", "x", "--cause", "agent.horzon=18"], "did you mean 'horizon'?"),
        (["verdict", ID, "bad", "x", "--cause", "horizon=18"], "did you mean agent.horizon?"),
        (["verdict", ID, "bad", "x", "--cause", "agent.horizon"], "allowed: key=value"),
        (["verdict", ID, "bad", "x", "--cause", "agent.horizon=long"], "allowed: a whole number"),
        (["verdict", ID, "bad"], "a verdict needs its reason"),
        (["verdict", ID, "bad", "because"], "a verdict needs its reason"),
        (["verdict", "1971498", "bad", "x"], "no job 1971498"),
        (["note", "1971498", "x"], "no job 1971498"),
        (["note", ID, " "], "no words to add"),
        (["note", ID, "x", "--edit"], "give one of them"),
    ],
)
def test_what_is_refused_changes_nothing(
    lab: Project, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    before = lab.note(ID).read_bytes()
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert lab.note(ID).read_bytes() == before
    assert not lab.job("1971498").folder.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cause", "agent.horizon=18"], f"--cause agent.horizon=18: {ID} had agent.horizon=3"),
        (["--cause", "agent.horizon = 18"], f"--cause agent.horizon=18: {ID} had agent.horizon=3"),
        (["--cause", "agent.horizon=3", "--cause", "agent.lr=1"], f"--cause agent.lr=1: {ID} had agent.lr=0.001"),
        (["--cause", "slurm.gpus=8"], f"--cause slurm.gpus=8: {ID} had slurm.gpus=2"),
    ],
)
def test_a_cause_that_the_job_did_not_have_is_refused(
    lab: Project, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    spec = Spec(
        name="quick",
        env=EnvConfig(id="Pendulum-v1"),
        agent=AgentConfig(horizon=3, lr=1e-3),
        slurm=SlurmConfig(gpus=2),
    )
    lab.job(ID).resolved.write_text(dump_yaml(spec))
    before = lab.note(ID).read_bytes()
    assert main(["verdict", ID, "bad", "because", "x", *words]) == 2
    assert told in capsys.readouterr().err
    assert main(["verdict", ID, "bad", f"x [cause: {words[-1].replace(' ', '')}]"]) == 2
    assert told in capsys.readouterr().err
    assert lab.note(ID).read_bytes() == before
    assert main(["verdict", ID, "bad", "x", "--cause", "agent.horizon=3", "--cause", "agent.lr=1e-3"]) == 0
    assert main(["verdict", ID, "bad", "x", "--cause", "slurm.gpus=2"]) == 0


def test_a_cause_of_an_array_is_a_setting_of_one_of_its_tasks(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    for task, horizon in (("7_0", 4), ("7_1", 6)):
        make_job(lab, task)
        spec = Spec(name="quick", env=EnvConfig(id="Pendulum-v1"), agent=AgentConfig(horizon=horizon))
        lab.job(task).resolved.write_text(dump_yaml(spec))
    write_array_note(lab, "7")
    assert main(["verdict", "7", "bad", "too far", "--cause", "agent.horizon=6"]) == 0
    assert main(["verdict", "7", "bad", "too far", "--cause", "agent.horizon=5"]) == 2
    assert "7 had agent.horizon=4 or agent.horizon=6" in capsys.readouterr().err
    assert main(["verdict", "7_0", "bad", "too far", "--cause", "agent.horizon=6"]) == 2


def test_a_judgement_is_one_of_three(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["verdict", ID, "awful", "x"])
    assert stop.value.code == 2
    assert "good" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["note", ID, "x"], ["verdict", ID, "good", "x"]])
def test_broken_markers_are_told(lab: Project, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    path = lab.note(ID)
    broken = path.read_bytes().replace(END.encode(), b"<!-- tdmpc-lab:end")
    path.write_bytes(broken)
    assert main(command) == 1
    assert "the end marker must be whole" in capsys.readouterr().err
    assert path.read_bytes() == broken
    path.write_bytes(b"all mine\n")
    if command[0] == "verdict":
        assert main(command) == 1
        assert "the begin marker is missing" in capsys.readouterr().err
        assert path.read_bytes() == b"all mine\n"


def test_a_note_without_a_job_takes_words_and_verdict(lab: Project) -> None:
    path = lab.note("1971519")
    path.write_bytes(b"##### 1971519 - killed\n- run with backprop")
    assert main(["note", "1971519", "by whom?"]) == 0
    assert main(["verdict", "1971519", "unclear", "nobody knows"]) == 0
    text = path.read_text()
    assert text.endswith("##### 1971519 - killed\n- run with backprop\n- by whom?\n")
    assert "--> unclear: nobody knows\n" + END in text
    assert not lab.job("1971519").folder.exists()


def editor(tmp_path: Path, code: str) -> str:
    script = tmp_path / "editor.py"
    script.write_text(f"import sys\nfrom pathlib import Path\npath = Path(sys.argv[1])\n{code}\n")
    return f"'{sys.executable}' '{script}'"


def test_edit_opens_the_editor(lab: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.delenv("VISUAL", raising=False)
    assert main(["note", ID, "--edit"]) == 2  # no terminal to ask at, and vi would wait for one
    before = lab.note(ID).read_text()
    monkeypatch.setenv("EDITOR", editor(tmp_path, "path.write_text(path.read_text() + 'typed in an editor\\n')"))
    assert main(["note", ID, "--edit"]) == 0
    assert lab.note(ID).read_text() == before + "typed in an editor\n"


def test_an_edit_that_can_not_be_kept_is_not_lost(
    lab: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    before = lab.note(ID).read_text()
    change = "path.write_text(path.read_text().replace('a few steps', 'my words'))"
    monkeypatch.setenv("EDITOR", editor(tmp_path, change))
    assert main(["note", ID, "--edit"]) == 1
    said = capsys.readouterr().err
    assert "inside the tool's block" in said
    assert "my words" in Path(said.strip().rpartition(" is in ")[2]).read_text()
    assert lab.note(ID).read_text() == before
    monkeypatch.setenv("EDITOR", "/no/such/editor")
    assert main(["note", ID, "--edit"]) == 3
    monkeypatch.setenv("EDITOR", editor(tmp_path, "sys.exit(1)"))
    assert main(["note", ID, "--edit"]) == 3
    assert lab.note(ID).read_text() == before


def test_mlflow_gets_words_and_verdict_and_its_failure_is_a_warning(
    lab: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tdmpc_lab.jobs.record import read_record
    from tdmpc_lab.jobs.unsent import unsent_as
    from tdmpc_lab.tracking.run import find_run, open_run, run_info
    from tdmpc_lab.tracking.store import open_client, store_uri

    uri = store_uri(lab.root)
    client = open_client(uri, lab.root)
    run = open_run(client, uri, lab.root, run_info(read_record(lab.job(ID)), {}))
    append_jsonl(lab.job(ID).events, {"event": "tracking", "run_id": run.info.run_id, "experiment_id": "1"})
    assert main(["note", ID, "the puck sticks"]) == 0
    assert main(["verdict", ID, "bad", "too far", "--cause", "agent.horizon=18"]) == 0
    found = find_run(client, [run.info.experiment_id], ID)
    assert found is not None
    tags = found.data.tags
    assert tags["verdict"] == "bad"
    assert tags["verdict_cause"] == "agent.horizon=18"
    description = tags["mlflow.note.content"].splitlines()
    assert description[0].startswith(f"{ID}: COMPLETED")
    assert description[2:4] == ["--> bad: too far [cause: agent.horizon=18]", "- the puck sticks"]
    assert description[5].startswith("##### ")
    capsys.readouterr()

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["verdict", ID, "good", "after all"]) == 0
    assert "warning: the note has it, MLflow not: MLflow at http://127.0.0.1:9" in capsys.readouterr().err
    assert "--> good: after all" in lab.note(ID).read_text()
    assert unsent_as(lab, ID) is not None  # `status` or `sync` makes up for it


AT_ONCE = """
import sys
from pathlib import Path
from tdmpc_lab.app.joblog.write import write_array_note, write_note
from tdmpc_lab.app.joblog.edit import add_words, judge
from tdmpc_lab.jobs.paths import Project
number, job, project = int(sys.argv[1]), sys.argv[2], Project(Path(sys.argv[3]))
sys.stdin.read(1)
for turn in range(5):
    write_note(project, project.job(job), None)
    add_words(project, job, f"words {number} {turn}")
    judge(project, job, "good", f"reason {number} {turn}")
"""


def test_twenty_processes_at_once_lose_nothing(lab: Project) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", AT_ONCE, str(n), ID, str(lab.root)], stdin=subprocess.PIPE)
        for n in range(20)
    ]
    try:
        for process in running:  # all wait for this, so that they write at the same time
            assert process.stdin is not None
            process.stdin.write(b"x")
            process.stdin.close()
        assert [process.wait(timeout=120) for process in running] == [0] * 20
    finally:
        for process in running:
            process.kill()
            process.wait()
    block, words = lab.note(ID).read_text().split(END + "\n\n")
    assert sorted(words.splitlines()) == sorted(f"- words {n} {turn}" for n in range(20) for turn in range(5))
    assert sum(line.startswith("-->") for line in block.splitlines()) == 1
    assert "COMPLETED in 1:00" in block


def test_the_note_of_a_whole_array_takes_words_too(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    for task in ("7_0", "7_1"):
        make_job(lab, task)
    write_array_note(lab, "7")
    assert main(["note", "7", "both", "learn"]) == 0
    assert main(["verdict", "7", "good", "because both learn"]) == 0
    write_array_note(lab, "7")
    capsys.readouterr()
    assert main(["note", "7"]) == 0
    text = capsys.readouterr().out
    assert "- 2 COMPLETED\n" in text
    assert "--> good: because both learn\n" in text
    assert text.endswith("- both learn\n")
    assert main(["note", "8"]) == 2
