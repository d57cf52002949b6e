"""Milliseconds of Mish and the group softmax, torch's own form and ours by turns, on 512 rows of 1024.

python benchmarks/activations.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Generator, Tensor

from tdmpc_lab.agent.networks import group_softmax, mish

REPEATS = 50
GROUP = 8


def plain_softmax(x: Tensor) -> Tensor:
    """torch's softmax over a last axis of eight."""
    return torch.softmax(x.unflatten(-1, (-1, GROUP)), -1).flatten(-2)


def forward_backward(form: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """One pass each way."""
    leaf = x.detach().requires_grad_()
    form(leaf).backward(x)


def main() -> None:
    """Print fastest and median of each form."""
    x = torch.randn(512, 1024, generator=Generator().manual_seed(0))
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "softmax, torch": plain_softmax,
        "softmax, ours": lambda x: group_softmax(x, GROUP),
        "mish, torch": F.mish,
        "mish, ours": mish,
    }
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(REPEATS):
        for name, form in forms.items():
            for way, call in (("forward", form), ("both ways", lambda x, form=form: forward_backward(form, x))):
                start = time.perf_counter()
                call(x)
                times.setdefault((name, way), []).append(1000 * (time.perf_counter() - start))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}: fastest and median of {REPEATS}, ms")
    for (name, way), values in times.items():
        print(f"{name:16}{way:10}{min(values):8.2f}{statistics.median(values):8.2f}")


if __name__ == "__main__":
    main()
