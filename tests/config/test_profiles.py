"""Profiles of `clusters.yaml`: profile < spec < command line, and every mistake told at its place."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from spec_fixtures import ENV, SECTION, write

from tdmpc_lab.config.loader import LoadedSpec, load_resolved, load_spec
from tdmpc_lab.config.project import check_profiles, profile_files
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.errors import SpecError

TCML = """\
tcml:
  partition: day
  gpus: "2080ti:1"
  memory: 24G
  time: 12:00:00
  setup: ["module load cuda"]
  container: {image: lab.sif, bind: ["/data:/data"]}
  extra: {nice: 5}
cpu: {partition: test}
"""


def load(folder: Path, text: str, *overrides: str, clusters: str = TCML, own: str = "") -> LoadedSpec:
    files = [write(folder, own, "own.yaml")] if own else []
    return load_spec(write(folder, text), overrides, profiles=[*files, write(folder, clusters, "clusters.yaml")])


def problems(folder: Path, text: str, *overrides: str, clusters: str = TCML, own: str = "") -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(folder, text, *overrides, clusters=clusters, own=own)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_later_wins_profile_spec_command_line(tmp_path: Path) -> None:
    text = ENV + "slurm: {profile: tcml, time: 6:00:00, extra: {exclusive: true}}"
    loaded = load(tmp_path, text, "slurm.partition=week")
    slurm = loaded.spec.slurm
    assert (slurm.profile, slurm.partition, slurm.gpus) == ("tcml", "week", "2080ti:1")
    assert slurm.time == timedelta(hours=6)
    assert slurm.extra == {"nice": 5, "exclusive": True}
    assert slurm.container is not None
    assert slurm.container.bind == ("/data:/data",)
    assert loaded.origin("slurm.gpus") == (str(tmp_path / "clusters.yaml"), 3)
    assert loaded.origin("slurm.partition").source == "command line"


def test_a_section_of_the_profile_can_be_turned_off(tmp_path: Path) -> None:
    text = ENV + "slurm: {profile: tcml, container: off, gpus: null, setup: []}"
    slurm = load(tmp_path, text).spec.slurm
    assert (slurm.container, slurm.gpus, slurm.setup) == (None, None, ())


@pytest.mark.parametrize(
    ("first", "text", "partition"),
    [
        ("default: tcml\n", "", "day"),
        ("default: {partition: month}\n", "", "month"),
        ("default: tcml\n", "slurm: {profile: cpu}", "test"),
        ("default: tcml\n", "slurm: {profile: null}", None),
        ("", "", None),
    ],
)
def test_the_default(tmp_path: Path, first: str, text: str, partition: str | None) -> None:
    assert load(tmp_path, ENV + text, clusters=first + TCML).spec.slurm.partition == partition


def test_ones_own_file_comes_before_the_projects(tmp_path: Path) -> None:
    own = "default: tcml\ntcml: {account: stud421, partition: week}\n"
    slurm = load(tmp_path, ENV, own=own).spec.slurm
    assert (slurm.account, slurm.partition, slurm.memory) == ("stud421", "week", "24G")


def test_the_resolved_spec_needs_no_profile(tmp_path: Path) -> None:
    spec = load(tmp_path, ENV, clusters=f"default: tcml\n{TCML}").spec
    assert spec.slurm.profile == "tcml"
    path = write(tmp_path, dump_yaml(spec), "resolved.yaml")
    (tmp_path / "clusters.yaml").unlink()
    assert load_resolved(path) == spec
    assert load_spec(path).spec == spec


@pytest.mark.parametrize(
    ("text", "clusters", "expected"),
    [
        ("slurm: {profile: tcm}", TCML, "demo.yaml:2: slurm.profile: found 'tcm'; profiles in "),
        ("", "default: tmcl\n" + TCML, "clusters.yaml:1: default: found 'tmcl'; profiles in clusters.yaml: tcml, cpu"),
        ("slurm: {profile: x}", "x: {partiton: day}", "clusters.yaml:1: x.partiton: unknown key (did"),
        ("slurm: {profile: x}", "x:\n  gpus: 0", "clusters.yaml:2: x.gpus: found 0; allowed: a whole number ≥ 1, or"),
        ("slurm: {profile: x}", "x:\n  time: 90", "clusters.yaml:2: x.time: found 90; allowed: a duration"),
        ("slurm: {profile: x}", "x: {profile: y}", "clusters.yaml:1: x.profile: not allowed in a profile (a profile"),
        ("slurm: {profile: x}", "x: {after: ['1']}", "clusters.yaml:1: x.after: not allowed in a profile (which jobs"),
        ("slurm: {profile: x}", "x: 5", f"clusters.yaml:1: x: found 5; allowed: {SECTION} profile, partition"),
        ("slurm: {profile: x}", "x: {cpus: 1, cpus: 2}", "clusters.yaml:1: x.cpus: given twice, first in line 1"),
        ("slurm: {profile: x}", "x: {container: {bind: [/a]}}", "clusters.yaml:1: slurm.container.image: missing"),
        ("", "x: [", "clusters.yaml:1: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_the_file_where_it_stands(
    tmp_path: Path, text: str, clusters: str, expected: str
) -> None:
    (problem,) = problems(tmp_path, ENV + text, clusters=clusters)
    assert problem.startswith(expected)


def test_without_any_profiles_the_way_to_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"found 'tcml', but there are no profiles \(write them into .*clusters\.yaml"):
        load_spec(write(tmp_path, ENV), ["slurm.profile=tcml"], profiles=[tmp_path / "clusters.yaml"])


def test_problems_of_spec_and_profile_come_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, ENV + "slurm: {profile: x}\ntrain: {steps: 0}", clusters="x: {cpus: 0}")
    assert [line.split(": ")[1] for line in found] == ["train.steps", "x.cpus"]


def test_all_profiles_can_be_checked(tmp_path: Path) -> None:
    good = write(tmp_path, "default: cpu\n" + TCML, "good.yaml")
    assert check_profiles([tmp_path / "none.yaml", good]) == ["tcml", "cpu"]
    bad = write(tmp_path, "default: z\na: {cpus: 0}\nb: {qos: a b}\n", "bad.yaml")
    with pytest.raises(SpecError) as caught:
        check_profiles([bad])
    assert [problem.key for problem in caught.value.problems] == ["a.cpus", "b.qos", "default"]


def test_where_profiles_are_looked_for(tmp_path: Path) -> None:
    assert profile_files(tmp_path, {"HOME": "/home/me"}) == (
        Path("/home/me/.config/tdmpc-lab/clusters.yaml"),
        tmp_path / "clusters.yaml",
    )
    assert profile_files(tmp_path, {"XDG_CONFIG_HOME": "/c"})[0] == Path("/c/tdmpc-lab/clusters.yaml")
