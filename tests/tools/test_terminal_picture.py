"""The picture of a terminal session: what was shown and typed is in it, and nothing from elsewhere."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "terminal-picture"
README = TOOL.parents[1] / "README.md"


def test_a_session_with_a_typed_line(tmp_path: Path) -> None:
    command = "printf 'name: '; read name; printf '\\033[31mseen %s\\033[0m\\n' \"$name\""
    picture = tmp_path / "session.svg"
    subprocess.run(
        [sys.executable, str(TOOL), str(picture), command, "anna", "--title", "greet"], check=True, timeout=60
    )
    text = picture.read_text(encoding="utf-8")
    shown = "".join(ET.fromstring(text).itertext()).replace("\xa0", " ")
    assert "$ greet" in shown and "name: anna" in shown and "seen anna" in shown
    assert not any(word in text.replace("http://www.w3.org/2000/svg", "") for word in ("http", "@font-face"))


def test_the_readmes_picture_of_the_review_is_one() -> None:
    picture = README.parent / "docs" / "images" / "review.svg"
    assert f"]({picture.relative_to(README.parent)})" in README.read_text(encoding="utf-8")
    shown = "".join(ET.fromstring(picture.read_text(encoding="utf-8")).itertext()).replace("\xa0", " ")
    assert "[g]ood [b]ad [u]nclear" in shown and "--> bad: because" in shown
