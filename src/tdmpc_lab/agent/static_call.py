"""A function of tensors called through buffers that keep their place: what a CUDA graph needs to be replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor

Function = Callable[..., Sequence[Tensor]]
WARM_UP = 3  # calls before a capture: libraries set up their workspaces in them


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Work on a stream of its own, as calls before a capture must; on a CPU nothing changes."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


class StaticCall:
    """`function`, captured in one CUDA graph where its inputs lie on such a device, else simply called.

    The function must not wait for the host, and must read whatever else it needs (weights) from tensors that keep
    their place. Every call copies its inputs in and its results out, so that results of one call outlive the next, and
    several captures can live in one process: each has memory of its own.

    Args:
        inputs: of the first call; all later ones have their shapes.
        warm_up: calls before the capture.
        generators: those that the function draws from.
    """

    def __init__(
        self,
        function: Function,
        inputs: Sequence[Tensor],
        *,
        warm_up: int = WARM_UP,
        generators: Sequence[Generator] = (),
    ) -> None:
        self._function = function
        with torch.inference_mode(False):
            self._inputs = [x.clone() for x in inputs]
        self._graph: torch.cuda.CUDAGraph | None = None
        if inputs[0].device.type == "cuda":
            self._capture(inputs[0].device, warm_up, generators)

    def _capture(self, device: torch.device, warm_up: int, generators: Sequence[Generator]) -> None:
        with side_stream(device):
            for _ in range(warm_up):
                self._function(*self._inputs)
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            self._outputs = self._function(*self._inputs)
        self._graph = graph

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The function's results for these inputs, which have the shapes of the first."""
        for buffer, value in zip(self._inputs, inputs, strict=True):
            buffer.copy_(value)
        if self._graph is None:
            return tuple(x.clone() for x in self._function(*self._inputs))
        self._graph.replay()
        return tuple(x.clone() for x in self._outputs)
