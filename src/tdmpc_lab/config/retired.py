"""What the specs of older versions mean, stored with jobs, checkpoints and exported agents. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tdmpc_lab.config.fieldtypes import KeyPath

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


def without_added(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values of a spec without the added keys that have their value of before."""
    kept = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for (section, name), before in ADDED.items():
        if isinstance(inside := kept.get(section), dict) and name in inside and inside[name] == before:
            del inside[name]
    return kept
