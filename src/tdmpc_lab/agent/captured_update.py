"""Updates captured in one CUDA graph: some thousand small pieces of work handed to the GPU at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial

import torch
from torch import Tensor

from tdmpc_lab.agent.learner import Learner
from tdmpc_lab.agent.replay import Batch
from tdmpc_lab.agent.static_call import WARM_UP, StaticCall, side_stream


class CapturedUpdate:
    """`Learner.update`, captured where the batch lies on a CUDA device; elsewhere the same path without the capture.

    The first updates for batches of one shape run as they are: they train as any other, and libraries set up their
    workspaces in them. What an update changes (weights, averages, the running scale) must keep its place from then on,
    so an agent that loads a checkpoint needs a new one of these.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._ran: Counter[torch.Size] = Counter()
        self._calls: dict[torch.Size, StaticCall] = {}
        self._names: tuple[str, ...] = ()

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """One update; its losses, as `Learner.update` gives them."""
        shape = batch.actions.shape
        if self._ran[shape] < WARM_UP:
            self._ran[shape] += 1
            with side_stream(batch.actions.device):
                return self._learner.update(batch)
        inputs = [tensor for field in fields(batch) if (tensor := getattr(batch, field.name)) is not None]
        if shape not in self._calls:
            self._learner.nets.forget_copies()  # so that all of them are made within the graph
            with self._capturable():
                generators = [self._learner.generator]
                given = [field.name for field in fields(batch) if getattr(batch, field.name) is not None]
                update = partial(self._update, given)
                self._calls[shape] = StaticCall(update, inputs, warm_up=0, generators=generators)
        (values,) = self._calls[shape](*inputs)
        # a replay does not tell that it wrote to the weights; who keeps copies of them asks for the version
        torch.autograd.graph.increment_version(list(self._learner.model.parameters()))
        return dict(zip(self._names, values.unbind(), strict=True))

    def _update(self, given: Sequence[str], *inputs: Tensor) -> tuple[Tensor]:
        losses = self._learner.update(Batch(**dict(zip(given, inputs, strict=True))))
        self._names = tuple(losses)
        return (torch.stack(list(losses.values())),)

    @contextmanager
    def _capturable(self) -> Iterator[None]:
        """torch wants to be told that a step may be captured, and warns of a step that could be but is not."""
        optimizers = (self._learner.model_optimizer, self._learner.policy_optimizer)
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        for group in groups:
            group["capturable"] = True
        try:
            yield
        finally:
            for group in groups:
                group["capturable"] = False
