"""Stored specs, of jobs, checkpoints and exported agents, that are older than this version's schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tdmpc_lab.config.fieldtypes import KeyPath
from tdmpc_lab.config.layers import Layer, holds, merge, nested, without

RETIRED: tuple[KeyPath, ...] = (
    ("planner", "cuda_graph"),  # became agent.cuda_graphs, which decides by itself
)
"""Keys that specs no longer have: they are left out."""

ADDED: Mapping[KeyPath, Any] = {
    ("agent", "entropy"): "gaussian",
    ("agent", "encoder_norm"): False,
    ("agent", "termination"): True,
    ("agent", "td_steps"): 1,
    ("agent", "policy_prior"): "value",
    ("planner", "pessimism"): 0.0,
    ("train", "replay_draw"): "uniform",
    ("train", "past_ends"): False,
    ("train", "mirror"): False,
    ("train", "start_from"): None,
}
"""Keys that came later, with what a spec without them did. A stored spec that lacks one means this value, whatever the
schema's default becomes; and a config in which a key has this value has the hash it had before there was the key."""


def modernise(layer: Layer) -> None:
    """Bring a layer that an older version may have written, and that holds every value in force, up to date."""
    for path in RETIRED:
        if holds(layer.data, path):
            layer.data = without(layer.data, path)
    for path, before in ADDED.items():
        if not holds(layer.data, path):
            layer.data = merge(nested(path, before), layer.data)


def without_added(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values of a spec without the added keys that have their value of before."""
    kept = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for (section, name), before in ADDED.items():
        if isinstance(inside := kept.get(section), dict) and name in inside and inside[name] == before:
            del inside[name]
    return kept
