"""Terminals of other encodings than UTF-8: every command says what it says, and no job minds."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tdmpc_lab import streams
from tdmpc_lab.cli.main import build_parser, main

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "app"))
from app_fixtures import write_specs

pytestmark = pytest.mark.xdist_group("streams")
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

# Every command that prints, on a job that has completed; those of the job log are called last.
COMMANDS = [
    ["init"],
    ["submit", "SPEC", "--dry-run", "--skip-preflight"],
    ["submit", "SPEC", "--dry-run", "--cluster", "slurm", "--skip-preflight"],
    ["submit", "SPEC", "agent.horzon=3"],
    ["resume", "last", "--steps", "1"],
    ["rerun", "last", "--dry-run", "agent.horizon=2"],
    ["cancel", "last"],
    ["wait", "last"],
    ["status"],
    ["status", "--md"],
    ["status", "--json"],
    ["show", "last"],
    ["show", "last", "--json"],
    ["logs", "last", "-n", "1000"],
    ["compare", "quick"],
    ["compare", "quick", "--md"],
    ["note", "last"],
    ["note", "last", "größer − kleiner"],
    ["note", "last", "--json"],
    ["verdict", "last", "good", "because −1 ≥ −2"],
    ["notes"],
    ["notes", "--json"],
    ["notes", "--rollup"],
    ["gc"],
    ["sync"],
    ["ui", "--print"],
    ["eval", "last", "--episodes", "1"],
    ["play", "last", "--opponent", "weak"],
    ["export", "last", "agent"],
    ["rewards", "SPEC"],
    ["describe", "SPEC"],
    ["check", "SPEC", "--cluster", "local"],
    ["doctor"],
    ["doctor", "last"],
    ["bench", "SPEC", "--no-reference", "--repeats", "1"],
    ["schema"],
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one job, submitted where nothing may be printed but ASCII; its returns are negative."""
    root = tmp_path_factory.mktemp("streams") / "project"
    (root / "experiments").mkdir(parents=True)
    write_specs(root)
    words = [
        "submit",
        "experiments/quick.yaml",
        "about=für −1 → +1",
        "--cluster",
        "local",
        "--wait",
        "--skip-preflight",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tdmpc_lab", *words],
        cwd=root,
        env={**os.environ, **ASCII_LOCALE},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=150,
        check=False,
    )
    said = (done.stdout + done.stderr).decode("ascii")
    assert done.returncode == 0, said
    assert "return -" in said
    return root


class Terminal:
    """Standard streams of an encoding that refuse what it lacks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
        self.bytes = {name: io.BytesIO() for name in ("stdout", "stderr")}
        self.encoding = encoding
        for name, raw in self.bytes.items():
            monkeypatch.setattr(sys, name, io.TextIOWrapper(raw, encoding=encoding, errors="strict"))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(), encoding=encoding))

    def said(self, name: str = "stdout") -> str:
        """What was printed."""
        getattr(sys, name).flush()
        return self.bytes[name].getvalue().decode(self.encoding)


def test_a_job_is_not_harmed_and_its_log_is_utf_8(trained: Path) -> None:
    (log,) = trained.glob("jobs/*/log.out")
    assert "return −" in log.read_text(encoding="utf-8")
    (resolved,) = trained.glob("jobs/*/resolved.yaml")
    assert "für −1 → +1" in resolved.read_text(encoding="utf-8")  # as typed, though the locale could not read it


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_prints_in_any_encoding(trained: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.chdir(trained)
    # Alternately: to run each twice would take twice the time, and the two go through the same handler.
    terminal = Terminal(monkeypatch, ("latin-1", "ascii")[COMMANDS.index(words) % 2])
    code = main(["experiments/quick.yaml" if word == "SPEC" else word for word in words])
    told = terminal.said() + terminal.said("stderr")
    assert code in (0, 1, 2, 3)  # 1, 3: doctor has something to say
    assert "Error" not in told and "Traceback" not in told
    if words[-1] == "--json":
        assert "für −1 → +1" in json.dumps(json.loads(terminal.said()), ensure_ascii=False)


def test_no_command_is_left_out() -> None:
    commands = set(build_parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr]
    assert {words[0] for words in COMMANDS} == commands


@pytest.mark.parametrize(
    ("encoding", "text", "written"),
    [
        ("utf-8", "−1 ± 2 ▁█", "−1 ± 2 ▁█".encode()),
        ("utf-8", "file \udcff", b"file \xff"),  # the byte of a name that is no text
        ("utf-8", "half \ud800 a pair", b"half ? a pair"),
        ("latin-1", "−1 ± 2 ▁█ … für", b"-1 \xb1 2 _# ... f\xfcr"),
        ("ascii", "−1 ± 2 ≥ 1 · h² → 漢", b"-1 +/- 2 >= 1 - h2 -> ?"),
    ],
)
def test_what_an_encoding_lacks_is_written_with_what_looks_like_it(
    monkeypatch: pytest.MonkeyPatch, encoding: str, text: str, written: bytes
) -> None:
    terminal = Terminal(monkeypatch, encoding)
    streams.take_any_text()
    print(text, end="", flush=True)
    assert terminal.bytes["stdout"].getvalue() == written


def test_a_shell_that_closed_the_streams_is_no_error(trained: Path) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m tdmpc_lab status >&- 2>&- <&-"
    assert subprocess.run(["bash", "-c", command], cwd=trained, check=False, timeout=60).returncode == 0


def test_notes_and_verdicts_are_utf_8_whatever_was_typed(trained: Path) -> None:
    """Bytes of a Latin-1 terminal in a UTF-8 locale."""
    for words in (["note", "last", b"b\xe4d"], ["verdict", "last", "bad", b"because s\xe4gezahn"]):
        command = [sys.executable, "-m", "tdmpc_lab", *words]
        subprocess.run(command, cwd=trained, env={**os.environ, "LC_ALL": "C.UTF-8"}, check=True, capture_output=True)
    (note,) = (trained / "notes").glob("local-*.md")
    text = note.read_text(encoding="utf-8")
    assert "bäd" in text
    assert "because sägezahn" in text


def test_words_are_kept_as_they_were_typed(trained: Path) -> None:
    word = "größer bei −1"
    subprocess.run(
        [sys.executable, "-m", "tdmpc_lab", "note", "last", word],
        cwd=trained, env={**os.environ, **ASCII_LOCALE}, check=True, timeout=60, capture_output=True,
    )  # fmt: skip
    (note,) = trained.glob("notes/local-*.md")
    assert f"- {word}\n" in note.read_text(encoding="utf-8")
