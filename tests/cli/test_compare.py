"""`compare` as it is typed."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "report"))
from compare_fixtures import games, make_job

from tdmpc_lab.cli.main import main


@pytest.fixture
def lab(project: Path) -> Path:
    for seed in range(1, 6):
        make_job(project, str(100 + seed), "baseline", seed, [-1000.0, -900.0 + 10 * seed])
        make_job(project, str(200 + seed), "quick", seed, [-990.0, -500.0 + 20 * seed], settings={"agent.horizon": 5})
    make_job(project, "206", "quick", 6, [-990.0], settings={"agent.horizon": 5}, outcome="failed")
    return project


def test_the_table(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "baseline", "quick", "--threshold", "-850", "--plot", "out/curves.svg"]) == 0
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "baseline 5 −870 [−887, −853] −870 [−887, −853] −935 [−943, −927] 200, 1 of 5" not in out
    assert any(line.startswith("baseline 5 −870 [") for line in lines)
    assert any(line.startswith("quick 5 of 6 −440 [") for line in lines)
    assert "agent.horizon 9 5" in lines
    assert any("probability 1.00 [1.00, 1.00] (5 and 5 seeds): better" in line for line in lines)
    assert "206 is FAILED at step 100 of 400" in out
    svg = (lab / "out" / "curves.svg").read_text()
    assert "baseline (5 seeds)" in svg and "quick (5 seeds)" in svg and "×: a run that ended early" in svg


@pytest.mark.parametrize("name", ["curves.png", "curves.pdf"])
def test_pictures(lab: Path, name: str) -> None:
    assert main(["compare", "baseline", "quick", "--plot", name]) == 0
    start = (lab / name).read_bytes()[:4]
    assert start == {"curves.png": b"\x89PNG", "curves.pdf": b"%PDF"}[name]


def test_for_scripts(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "quick", "baseline", "--json", "--threshold=-440"]) == 0
    document = json.loads(capsys.readouterr().out)
    quick = document["variants"][0]
    assert (quick["name"], quick["seeds"], quick["reached"], quick["steps_to"]) == ("quick", 5, 3, 200)
    assert quick["final"]["value"] == pytest.approx(-440.0)
    assert [run["job"] for run in quick["runs"]] == ["201", "202", "203", "204", "205"]
    assert quick["left_out"] == [{"job": "206", "state": "FAILED", "step": 100}]
    assert document["improvements"][0]["judgement"] == "worse"
    assert document["differences"] == [{"key": "agent.horizon", "values": {"quick": "5", "baseline": "9"}}]

    assert main(["compare", "quick", "baseline", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["variant"] for row in rows] == ["quick", "baseline"]
    assert float(rows[0]["final"]) == pytest.approx(-440.0)
    assert (rows[0]["improvement"], float(rows[1]["improvement"]), rows[1]["agent.horizon"]) == ("", 0.0, "9")


def test_markdown(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "baseline", "quick", "--md"]) == 0
    out = capsys.readouterr().out
    assert "| setting | baseline | quick |\n|---|---:|---:|\n| agent.horizon | 9 | 5 |" in out
    assert "\n- quick: 206 is FAILED" in out


def test_win_rates(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2):
        make_job(project, str(seed), "one", seed, [games(0.6)], settings={"env.id": "hockey"})
        make_job(project, str(seed + 2), "other", seed, [games(0.8)], settings={"env.id": "hockey", "agent.rho": 0.7})
    assert main(["compare", "one", "other"]) == 0
    out = capsys.readouterr().out
    assert "games won vs strong" in out and "0.60 [0.39, 0.78] of 20" in out
    assert out.count("too few seeds to tell") == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "say what to compare"),
        (["baselin"], "did you mean baseline?"),
        (["baseline"], "--alone"),
        (["baseline", "quick", "--plot", "a.jpg"], "its name ends in .png or .svg or .pdf"),
        (["baseline", "quick", "--metric", "win"], "there are: return_mean"),
    ],
)
def test_mistakes(lab: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    assert main(["compare", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error
    assert sorted(path.name for path in lab.iterdir()) == ["experiments", "jobs"]


def test_the_page_needs_no_other_file(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = lab / "jobs" / "205" / "videos" / "step_200.mp4"
    video.parent.mkdir()
    video.write_bytes(b"film")
    make_job(
        lab, "207", "quick", 7, [-990.0, -700.0], settings={"agent.horizon": 5}, about="<b>short</b>", why="a & b?"
    )
    (lab / "notes").mkdir()
    (lab / "notes" / "201.md").write_text("- the pole <wobbles>\n--> good: because it stays up\n")
    assert main(["compare", "207", "baseline", "201", "205", "--html", "page.html"]) == 0
    page = (lab / "page.html").read_text()
    assert "<h1>quick and baseline</h1>" in page
    assert "<strong>quick</strong>: &lt;b&gt;short&lt;/b&gt; — <em>a &amp; b?</em>" in page
    assert "the pole &lt;wobbles&gt;" in page and "--&gt; good: because it stays up" in page
    assert 'src="data:video/mp4;base64,ZmlsbQ=="' in page
    assert "<td>agent.horizon</td><td>5</td><td>9</td>" in page
    assert "<svg" in page and "baseline (5 seeds)" in page
    assert "too few seeds to tell" in page
    assert "http://" not in page.replace("http://www.w3.org/", "").replace("http://purl.org/", "").replace(
        "http://creativecommons.org/", ""
    )
    assert "page: page.html" in capsys.readouterr().err
    assert main(["compare", "baseline", "quick", "--html", "page.txt"]) == 2
