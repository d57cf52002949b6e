"""Where each value of a loaded spec was given."""

from __future__ import annotations

from pathlib import Path

from spec_fixtures import write

from tdmpc_lab.config.layers import Origin
from tdmpc_lab.config.loader import LoadedSpec, load_spec


def test_the_place_of_every_kind_of_key(tmp_path: Path) -> None:
    base = write(
        tmp_path,
        "about: x\nname: base\neval:\n  every: 5\nenv:\n  id: A-v0\n  options: {a: 1}\nagent:\n  lr: 1\n",
        "base.yaml",
    )
    demo = write(tmp_path, "extends: base.yaml\neval: off\nenv:\n  options:\n    b: {c: 2}\nagent:\n  rho: 0.5\n")
    loaded = load_spec(demo, ["env.options.d.e=3", "agent.lr=2"])
    places = {
        "about": (base, 1),
        "env.id": (base, 6),
        "env.options.a": (base, 7),
        "env.options.b.c": (demo, 5),
        "agent.rho": (demo, 7),
        "agent.lr": ("command line", None),
        "env.options.d": ("command line", None),
        "env.options.d.e": ("command line", None),
        "env.options": ("command line", None),  # what was changed last is the first suspect
        "eval": (demo, 2),
        "eval.every": (demo, 2),  # off hides what the other file says
        "env.max_episode_steps": (demo, 3),  # nowhere: at the section
        "train.steps": (demo, None),
        "compare_to": (demo, None),
        "name": (demo, None),  # the file's own name, not the one of what it extends
        "env.options.z": (demo, None),
    }
    assert {key: loaded.origin(key) for key in places} == {
        key: Origin(str(source), line) for key, (source, line) in places.items()
    }


def test_a_spec_put_together_by_hand_comes_from_its_file(tmp_path: Path) -> None:
    loaded = load_spec(write(tmp_path, "env: {id: A-v0}\n"))
    other = LoadedSpec(loaded.spec, loaded.text, Path("x.yaml"), ())
    assert other.origin("env.id") == ("x.yaml", None)
