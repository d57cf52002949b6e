"""The documentation points at what is there, and shows commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shown_commands import Shown, shown_commands
from tdmpc_lab.cli.main import build_parser, parse

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_relative_links_exist(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_named_exist(page: Path) -> None:
    package = ROOT / "src" / "tdmpc_lab"
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.(?:py|cpp|h))(?::[a-z_]+)?`", page.read_text())
    folders = {path.name for path in package.iterdir() if path.is_dir()}
    ours = [name for name in named if name.partition("/")[0] in folders]
    assert [name for name in ours if not (package / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_specs_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = set(build_parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr]
    named = set(re.findall(r"`(?:\.venv/bin/)?tdmpc-lab ([a-z]+)", text))
    assert named <= known
    specs = set(re.findall(r"experiments/[\w/]+\.yaml", text))
    assert not [spec for spec in specs if not (ROOT / spec).exists()]


@pytest.mark.parametrize(
    "shown", shown_commands(), ids=[f"{shown.page}: {shown.text}"[:70] for shown in shown_commands()]
)
def test_every_command_shown_is_one(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    """By the real parser: options that exist, values that it takes."""
    try:
        parse(shown.words)
    except SystemExit as end:
        assert end.code == 0, capsys.readouterr().err  # --help, --version


def test_commands_are_found_in_pages() -> None:
    found = list(shown_commands())
    assert len(found) > 60
    assert {shown.page for shown in found} >= {"README.md", "slurm.md", "status.md", "results.md", "notes.md"}


NOT_SAID = {
    r"signs? of life": "heartbeat",
    r"look(s|ed|ing)? ahead": "check",
    r"level with": "in sync with",
    r"(goes|go|going|gone|went) on (from|with)": "continues from, with",
    r"nobody needs": "removable",
    r"a person": "a user",
    r"\b(he|his|him)\b": "they, their (a player of a game may be he)",
}
"""The glossary: what is not said, and what instead."""


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "src").rglob("*.py"))], ids=lambda path: path.name)
def test_the_words_are_those_of_the_glossary(page: Path) -> None:
    if page.name == "CHANGELOG.md":  # what was said of earlier versions stands
        return
    game = page.parent.name == "hockey"
    text = page.read_text(encoding="utf-8").replace("goes on from|", "")  # as earlier versions wrote it into notes
    found = [
        f"{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}: rather {instead}"
        for words, instead in NOT_SAID.items()
        for match in re.finditer(words, text)
        if not (game and instead.startswith("they"))
    ]
    assert found == []
