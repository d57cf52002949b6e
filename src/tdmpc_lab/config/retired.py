"""Keys that specs no longer have: stored ones, of jobs and checkpoints that are older, are read without them."""

from __future__ import annotations

from tdmpc_lab.config.fieldtypes import KeyPath
from tdmpc_lab.config.layers import Layer, holds, without

RETIRED: tuple[KeyPath, ...] = (
    ("planner", "cuda_graph"),  # became agent.cuda_graphs, which decides by itself
)


def drop_retired(layer: Layer) -> None:
    """Take them out of a layer that was written by an older version."""
    for path in RETIRED:
        if holds(layer.data, path):
            layer.data = without(layer.data, path)
