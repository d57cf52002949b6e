"""The planner's roll-outs in the compiled kernels.

Shapes: E environments, N sequences per environment, P policy trajectories, H horizon, A action, L latent; L* is L
rounded up to whole tiles.
"""

from __future__ import annotations

from ctypes import byref

import torch
from torch import Tensor

from tdmpc_lab.agent.native.library import Backend, Library, RollJob, TerminalJob
from tdmpc_lab.agent.native.packed import TILE, TiledModel
from tdmpc_lab.agent.rollouts import Rolled
from tdmpc_lab.agent.world_model import WorldModel

BLOCK_ROWS = 128  # rows that go through all steps together: their activations stay in the second-level cache


class NativeRollouts:
    """`Rollouts` on the CPU: bfloat16 products, float32 sums and values. Threads are as many as torch has.

    Results are the same to the last bit for any number of threads, and for any number of environments at once.

    Raises:
        ValueError: the model has more layers than the kernels are made for.
    """

    def __init__(
        self,
        library: Library,
        backend: Backend,
        model: WorldModel,
        *,
        horizon: int,
        discount: float,
        pessimism: float = 0.0,
    ) -> None:
        self.backend = backend
        self.horizon = horizon
        self.action_dim = model.action_dim
        self.q_heads = model.q.heads
        self.pessimism = pessimism
        self._library = library
        self._packed = TiledModel(library, backend, model)
        self._width = self._packed.model.latent_tiles * TILE
        self._discounts = torch.tensor([discount**t for t in range(horizon)], dtype=torch.float32)
        self._workspace = torch.empty(0, dtype=torch.uint8)

    def refresh(self) -> None:
        """See `Rollouts`."""
        self._packed.refresh()

    def start(self, z: Tensor) -> Tensor:
        """z (E, L) itself. Takes the model's present weights."""
        self._packed.refresh()
        return z.contiguous()

    def propose(self, start: object, noise: Tensor) -> tuple[Tensor, Rolled]:
        """See `Rollouts`."""
        noise = noise.contiguous()
        actions = torch.empty_like(noise)
        return actions, self._roll(start, actions, noise)

    def roll(self, start: object, actions: Tensor) -> Rolled:
        """See `Rollouts`."""
        return self._roll(start, actions.contiguous(), None)

    def terminal(self, last: Tensor, noise: Tensor, heads: Tensor) -> Tensor:
        """See `Rollouts`; `last` is (E, N, L*) in bfloat16."""
        last, noise = last.contiguous(), noise.contiguous()
        value = self._mean_of_two(last, noise, heads.tolist())
        if self.pessimism == 0:
            return value
        every = torch.stack([self._mean_of_two(last, noise, [head, head]) for head in range(self.q_heads)])
        return value - self.pessimism * every.std(0, correction=0)

    def _mean_of_two(self, last: Tensor, noise: Tensor, heads: list[int]) -> Tensor:
        value = torch.empty(last.shape[:2])
        job = TerminalJob(last.data_ptr(), noise.data_ptr(), value.data_ptr(), value.numel(), tuple(heads))
        self._run("terminal", job)
        return value

    def _roll(self, start: object, actions: Tensor, noise: Tensor | None) -> Rolled:
        assert isinstance(start, Tensor)
        envs, count, horizon, _ = actions.shape
        rolled = Rolled(
            torch.empty(envs, count),
            torch.empty(envs, count),
            torch.empty(envs, count, self._width, dtype=torch.bfloat16),
        )
        job = RollJob(
            start.data_ptr(),
            None if noise is None else noise.data_ptr(),
            actions.data_ptr(),
            self._discounts.data_ptr(),
            rolled.value.data_ptr(),
            rolled.alive.data_ptr(),
            rolled.last.data_ptr(),
            envs,
            count,
            horizon,
        )
        self._run("roll", job)
        return rolled

    def _run(self, name: str, job: RollJob | TerminalJob) -> None:
        packed, library = self._packed, self._library
        threads = torch.get_num_threads()
        size = library.workspace(byref(packed.model), BLOCK_ROWS, threads)
        if self._workspace.numel() < size:
            self._workspace = torch.empty(size, dtype=torch.uint8)
        function = getattr(library, name)
        function(byref(packed.model), byref(job), packed.backend, BLOCK_ROWS, threads, self._workspace.data_ptr())
