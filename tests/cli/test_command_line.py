"""The whole command line as it was agreed on: commands, words, options, defaults, choices; and the exit codes.

`command_line.json` is the record. A change of it is a change for everybody's scripts;
`python tests/cli/test_command_line.py` writes it anew.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tdmpc_lab.cli.main import build_parser, main

RECORD = Path(__file__).with_name("command_line.json")


def commands(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command with its parser, those within commands too: `notes import`."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from commands(inner, f"{name} {word}".strip())


def described(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """What can be typed behind a command: words in their order, options by their names."""
    words, options = [], {}
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._VersionAction | argparse._SubParsersAction):
            continue
        form: dict[str, Any] = {
            "takes": "nothing" if action.nargs == 0 else action.nargs or "one",
            "default": None if action.default is argparse.SUPPRESS else action.default,
            "choices": None if action.choices is None else list(action.choices),
            "again": type(action).__name__ in ("_AppendAction", "_ExtendAction"),
            "required": action.required,
            "number": _takes_numbers_only(action),
        }
        form = {name: value for name, value in form.items() if value not in (None, False)}
        if action.option_strings:
            options["/".join(action.option_strings)] = form
        else:
            words.append({"word": action.metavar or action.dest, **form})
    return {"words": words, "options": dict(sorted(options.items()))}


def _takes_numbers_only(action: argparse.Action) -> bool:
    if action.type is None or not callable(action.type):
        return False
    try:
        action.type("a word")
    except (ValueError, argparse.ArgumentTypeError):
        return True
    return False


def command_line() -> dict[str, Any]:
    return {name: described(parser) for name, parser in commands(build_parser())}


def test_every_command_option_and_default_is_as_agreed() -> None:
    assert command_line() == json.loads(RECORD.read_text(encoding="utf-8"))


RECORDED = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
WORDS = {name: [word for word in form["words"] if word["takes"] in ("one", "+")] for name, form in RECORDED.items()}


def filled(name: str) -> list[str]:
    """The command with a word wherever it needs one."""
    return [*name.split(), *(word["choices"][0] if "choices" in word else "x" for word in WORDS[name])]


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_command_line_that_is_wrong_is_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = [[*filled(name), "--no-such-option"]]
    if WORDS[name]:
        wrong.append(name.split())
    for option, form in RECORDED[name]["options"].items():
        flag = option.rpartition("/")[2]
        if form["takes"] not in ("nothing", "?"):
            wrong.append([*filled(name), flag])
        if "number" in form:
            wrong.append([*filled(name), flag, "many"])
        if "choices" in form:
            wrong.append([*filled(name), flag, "none-of-them"])
    for words in wrong:
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2, words
        said = capsys.readouterr()
        assert said.out == "" and "usage: tdmpc-lab" in said.err, words


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_help_is_0_and_names_every_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert all(flag in said.out for option in RECORDED[name]["options"] for flag in option.split("/"))


def test_a_command_that_is_interrupted_is_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tdmpc_lab.jobs.paths.find_project", interrupt)
    assert main(["status"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(form, ensure_ascii=False)}" for name, form in command_line().items()]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
