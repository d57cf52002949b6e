"""The picture of `rewards`: raw, shaped and learned reward of some episodes, step by step and added up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tdmpc_lab.outputs import picture_metadata
from tdmpc_lab.sharing import own_umask_outside

Series = NDArray[np.float64]
# Told apart by line and width too, so that a print in grey can be read. The widest lies at the back.
_LINES = (
    ("after backprop", {"color": "tab:orange", "linewidth": 4.0, "alpha": 0.55}),
    ("shaped", {"color": "tab:blue", "linewidth": 1.8, "linestyle": (0, (4, 2))}),
    ("raw", {"color": "black", "linewidth": 1.0}),
)


def draw_rewards(path: Path, episodes: Sequence[tuple[str, Series, Series, Series]]) -> None:
    """Draw episodes, each a title and its raw, shaped and learned rewards (T,), one row of two charts each.

    Left the reward of every step, right the return so far. The ending of `path` says which format. Raises OSError.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2 * len(episodes)), layout="constrained")
    axes = figure.subplots(len(episodes), 2, squeeze=False)
    for row, (title, raw, shaped, learned) in zip(axes, episodes, strict=True):
        for series, (name, style) in zip((learned, shaped, raw), _LINES, strict=True):
            steps = np.arange(len(series))
            row[0].plot(steps, series, label=name, **style)
            row[1].plot(steps, np.cumsum(series), label=name, **style)
        row[0].set_title(title, loc="left", fontsize=10)
        row[0].set_ylabel("reward")
        row[1].set_ylabel("return so far")
        for axis in row:
            axis.grid(alpha=0.3)
            axis.margins(x=0.01)
    axes[0][1].legend(loc="best", frameon=False)
    for axis in axes[-1]:
        axis.set_xlabel("step of the episode")
    with own_umask_outside(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, metadata=picture_metadata(path.suffix))
