"""Specs of older versions: what they lack means what it meant, and an unchanged config is the same config."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdmpc_lab.config.diff import config_hash, group_hash
from tdmpc_lab.config.fieldtypes import spec_types
from tdmpc_lab.config.layers import value_at
from tdmpc_lab.config.loader import load_resolved, load_resolved_text, spec_from_dict
from tdmpc_lab.config.retired import ADDED, RETIRED
from tdmpc_lab.config.serialize import dump_yaml, to_dict

ROOT = Path(__file__).parents[2]
OLD = ROOT / "tests" / "training" / "job_before" / "resolved.yaml"

# Written down with the version before there were any added keys.
HASHES = [
    (ROOT / "models" / "hockey" / "spec.yaml", "6b8e43e16d2f4c98", "a4a6e5623d"),
    (OLD, "c3f3b0fd593e5b8b", "d3a51d6a8e"),
]


@pytest.mark.parametrize(("path", "config", "group"), HASHES, ids=lambda value: getattr(value, "name", ""))
def test_the_hash_of_an_unchanged_config_is_as_before(path: Path, config: str, group: str) -> None:
    spec = load_resolved(path)
    assert (config_hash(spec), group_hash(spec)) == (config, group)
    again = load_resolved_text(dump_yaml(spec), "as it is written now")
    assert (config_hash(again), group_hash(again)) == (config, group)


def test_a_new_spec_that_sets_none_of_them_too() -> None:
    spec = spec_from_dict({"name": "plain", "env": {"id": "Pendulum-v1"}})
    assert (config_hash(spec), group_hash(spec)) == ("9b09ed5060032d18", "214b27228c")


@pytest.mark.parametrize("path", ADDED, ids=".".join)
def test_a_stored_spec_without_a_key_means_what_it_did(path: tuple[str, ...]) -> None:
    section, name = path
    text = OLD.read_text()
    assert f"  {name}:" not in text
    assert value_at(to_dict(load_resolved_text(text, "old")), path) == ADDED[path]
    assert spec_types()[path].accepts(ADDED[path])
    other = OTHER[path]
    written = text.replace(f"\n{section}:\n", f"\n{section}:\n  {name}: {other}\n")
    spec = load_resolved_text(written, "with the key")
    assert value_at(to_dict(spec), path) != ADDED[path]
    assert config_hash(spec) != config_hash(load_resolved(OLD)), "another value is another config"
    assert group_hash(spec) != group_hash(load_resolved(OLD))


OTHER = {
    ("agent", "entropy"): "squashed",
    ("agent", "encoder_norm"): "true",
    ("agent", "termination"): "off",
    ("agent", "td_steps"): "3",
    ("agent", "policy_prior"): "cloned",
    ("planner", "pessimism"): "0.5",
    ("train", "replay_draw"): "episode",
    ("train", "past_ends"): "on",
    ("train", "mirror"): "on",
    ("train", "start_from"): "local-20261126-022826-142",
}


def test_a_default_that_is_changed_later_changes_no_old_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table decides, not the schema."""
    from tdmpc_lab.config import loader, retired

    table = {**ADDED, ("agent", "entropy"): "squashed"}
    monkeypatch.setattr(loader, "ADDED", table)
    monkeypatch.setattr(retired, "ADDED", table)
    assert load_resolved(OLD).agent.entropy == "squashed"


def test_tables_are_of_keys_there_are_and_of_keys_there_are_not() -> None:
    assert all(path in spec_types() for path in ADDED)
    assert not any(path in spec_types() for path in RETIRED)


def test_names_of_the_job_log_stay_unique() -> None:
    """`horizon`, `reward` and the like are found by their last word; a second key of a name would silence warnings."""
    names = [path[-1] for path, kind in spec_types().items() if not kind.section]
    for name in ("horizon", "scale", "backprop", "shaping", "policy", "opponent", "latent_dim", "hidden_dim", "lr"):
        assert names.count(name) <= 1, name
    added = {path[-1] for path in ADDED}
    assert all(names.count(name) == 1 for name in added)
    assert not added & {path[-1] for path, kind in spec_types().items() if kind.section}
