"""The networks of an update in the compiled kernels: forward and backward passes of whole networks.

Shapes: R rows, T steps, n heads, S state and E extra inputs, O outputs; H horizon, B batch, L latent, A action, K bins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ctypes import POINTER, byref, cast
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tdmpc_lab.agent.blocks import NORM_EPS
from tdmpc_lab.agent.clipped_step import ClippedStep
from tdmpc_lab.agent.native.learning import NativeClippedStep, NativeRegression
from tdmpc_lab.agent.native.library import BACKENDS, Backend, Gradient, Library, TrainJob, TrainLayer, TrainNet
from tdmpc_lab.agent.native.packed import TILE, Packer, TiledLayer, padded, q_head, sequential
from tdmpc_lab.agent.networks import Mish, QEnsemble, SimNorm
from tdmpc_lab.agent.training_model import TrainingModel
from tdmpc_lab.agent.world_model import WorldModel

NONE, MISH, RELU, SOFTMAX = range(4)
BLOCK_ROWS = 64  # rows that go through all layers together, whatever the number of threads: sums keep their order


class TrainedNet:
    """One network, or an ensemble of them, with its weights packed.

    Args:
        describe: gives the layers of each head, as they lie in memory at that time.
        parameters: weight, bias and, where there is a norm, its weight and bias, layer by layer; of an ensemble
            stacked, weights as (heads, inputs, outputs), else as (outputs, inputs).
        activations: of every layer.
        sizes: S and E.
    """

    def __init__(
        self,
        library: Library,
        backend: Backend,
        describe: Callable[[], list[list[TiledLayer]]],
        parameters: Sequence[nn.Parameter],
        activations: Sequence[int],
        *,
        sizes: tuple[int, int],
        group: int = 8,
        stacked: bool = False,
    ) -> None:
        self.library = library
        self.parameters = list(parameters)
        self._describe = describe
        heads = describe()
        self.heads = len(heads)
        self._activations = list(activations)
        self._sizes = sizes
        self._group = group
        self._stacked = stacked
        self._packer = Packer(library, backend, self.parameters)
        self.outputs = heads[0][-1].outputs
        self.has_norm = [layer.parts[0].gain is not None for layer in heads[0]]
        self._layers: list[list[TrainLayer]] = []
        self._structures: dict[tuple[int, ...], TrainNet] = {}

    def refresh(self) -> None:
        """Pack again if any weight was changed or moved since the last time."""
        packer = self._packer
        if packer.moved() or not self._layers:
            packer.begin()
            self._layers = [
                [
                    TrainLayer(packer.linear(layer), packer.turned(layer), activation, 0)
                    for layer, activation in zip(layers, self._activations, strict=True)
                ]
                for layers in self._describe()
            ]
            self._structures.clear()
            packer.end()
        packer.refresh()

    def __call__(
        self,
        state: Tensor,
        extra: Tensor | None = None,
        *,
        heads: Tensor | None = None,
        frozen: bool = False,
        dropped: Tensor | None = None,
        keep: float = 1.0,
    ) -> Tensor:
        """state (R, S) and extra (T, R, E) to (n, T, R, O). What comes out of a step is the next one's state.

        Args:
            heads: those wanted; all when None.
            frozen: no gradients by the parameters.
            dropped: positions in (n, T · R, O of the first layer), ascending, that dropout takes out after the first
                LayerNorm.
            keep: share of entries kept; the others are divided by it.
        """
        self.refresh()
        chosen = list(range(self.heads)) if heads is None else heads.tolist()
        call = _Call(self, chosen, dropped, keep)
        parameters = [p.detach() for p in self.parameters] if frozen else self.parameters
        return _Net.apply(call, state, extra, *parameters)  # type: ignore[no-any-return, no-untyped-call]

    def structure(self, heads: list[int]) -> TrainNet:
        """What the kernels read, for the chosen heads."""
        key = tuple(heads)
        if key not in self._structures:
            self._structures[key] = self._structure(heads)
        return self._structures[key]

    def _structure(self, heads: list[int]) -> TrainNet:
        count = len(self._activations)
        layers = (TrainLayer * (len(heads) * count))(*(layer for head in heads for layer in self._layers[head]))
        state, extra = self._sizes
        return TrainNet(  # which keeps `layers` in memory
            cast(layers, POINTER(TrainLayer)),
            len(heads),
            count,
            state,
            extra,
            padded(state) // TILE,
            padded(extra) // TILE,
            self._group,
            int(self._stacked),
            NORM_EPS,
            0,
        )

    def gradients(self, heads: list[int]) -> tuple[list[Tensor], Any]:
        """Memory for the gradients by all parameters, and where in it each head's are."""
        whole = not self._stacked or heads == list(range(self.heads))
        made = [torch.empty_like(p) if whole else torch.zeros_like(p) for p in self.parameters]
        found = []
        for head in heads:
            rest = iter(made)
            for norm in self.has_norm:
                layer = [next(rest) for _ in range(4 if norm else 2)]
                addresses = [(t[head] if self._stacked else t).data_ptr() for t in layer]
                found.append(Gradient(*addresses))
        return made, (Gradient * len(found))(*found)

    @property
    def backend(self) -> int:
        """Its number in the library."""
        return self._packer.backend


class _Call:
    """One call of a network: what forward and backward pass share besides tensors."""

    def __init__(self, net: TrainedNet, heads: list[int], dropped: Tensor | None, keep: float) -> None:
        self.net = net
        self.heads = heads
        self.structure = net.structure(heads)
        self.dropped = dropped
        self.keep = keep
        self.taped = torch.is_grad_enabled()

    def job(self, state: Tensor, extra: Tensor | None, out: Tensor) -> TrainJob:
        """The part that both passes have; tape and memory are still to come."""
        job = TrainJob()
        job.state, job.extra = state.data_ptr(), None if extra is None else extra.data_ptr()
        job.out = out.data_ptr()
        job.rows, job.steps = state.shape[0], 1 if extra is None else extra.shape[0]
        if self.dropped is not None:
            job.dropped, job.dropped_count = self.dropped.data_ptr(), self.dropped.numel()
        job.keep_scale, job.taped = 1 / self.keep, int(self.taped)
        job.block = BLOCK_ROWS
        return job

    def run(self, function: Callable[..., None], job: TrainJob) -> None:
        """The library's `forward` or `backward`."""
        threads = torch.get_num_threads()
        workspace = _bytes(self.net.library.train_workspace(byref(self.structure), job.block, threads))
        function(byref(self.structure), byref(job), self.net.backend, threads, workspace.data_ptr())


class _Net(torch.autograd.Function):
    """`TrainedNet.__call__`."""

    @staticmethod
    def forward(ctx: Any, call: _Call, state: Tensor, extra: Tensor | None, *_parameters: Tensor) -> Tensor:
        state = state.contiguous()
        extra = None if extra is None else extra.contiguous()
        steps = 1 if extra is None else extra.shape[0]
        out = state.new_empty(len(call.heads), steps, state.shape[0], call.net.outputs)
        job = call.job(state, extra, out)
        tape = _bytes(call.net.library.tape_bytes(byref(call.structure), byref(job)))
        job.tape = tape.data_ptr()
        call.run(call.net.library.forward, job)
        ctx.call = call
        ctx.save_for_backward(state, extra, out, tape)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_out: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        state, extra, out, tape = ctx.saved_tensors
        _, need_state, need_extra, *need_parameters = ctx.needs_input_grad
        by_out = by_out.contiguous()
        job = call.job(state, extra, out)
        job.tape, job.by_out = tape.data_ptr(), by_out.data_ptr()
        by_state = torch.empty_like(state) if need_state else None
        by_extra = torch.empty_like(extra) if need_extra else None
        job.by_state = None if by_state is None else by_state.data_ptr()
        job.by_extra = None if by_extra is None else by_extra.data_ptr()
        by_parameters: list[Any] = [None] * len(need_parameters)
        if any(need_parameters):
            by_parameters, gradients = call.net.gradients(call.heads)
            job.gradients = cast(gradients, POINTER(Gradient))
        memory = _bytes(call.net.library.memory_bytes(byref(call.structure), byref(job)))
        job.memory = memory.data_ptr()
        call.run(call.net.library.backward, job)
        return None, by_state, by_extra, *by_parameters


def _bytes(count: int) -> Tensor:
    return torch.empty(count, dtype=torch.uint8)


class NativeTrainingModel(TrainingModel):
    """`TrainingModel` in the compiled kernels: bfloat16 products, all else float32. For the CPU.

    As there, the last layers of policy and termination are float32.
    """

    def __init__(self, library: Library, backend: Backend, model: WorldModel) -> None:
        super().__init__(model)
        self._library, self._backend = library, BACKENDS.index(backend)
        self.regression = NativeRegression(library, self._backend, model.regression)
        latent, action, group = model.latent_dim, model.action_dim, model.dynamics.simnorm.group
        both = (latent, action)

        def net(modules: nn.Sequential, pieces: tuple[int, ...]) -> TrainedNet:
            sizes = (pieces[0], sum(pieces[1:]))
            parameters, kinds = list(modules.parameters()), _activations(modules)
            described = partial(_one_head, modules, pieces)
            return TrainedNet(library, backend, described, parameters, kinds, sizes=sizes, group=group)

        def ensemble(q: QEnsemble) -> TrainedNet:
            hidden = len(q.norm_weights)
            parameters = [
                p for i in range(hidden) for p in (q.weights[i], q.biases[i], q.norm_weights[i], q.norm_biases[i])
            ]
            parameters += [q.weights[-1], q.biases[-1]]
            kinds = [MISH] * hidden + [NONE]
            return TrainedNet(
                library, backend, partial(_all_heads, q, both), parameters, kinds, sizes=both, stacked=True
            )

        self._encoder = net(model.encoder.net, (model.observation_dim,))
        self._dynamics = net(nn.Sequential(*model.dynamics.net, model.dynamics.simnorm), both)
        self._reward = net(model.reward.net, both)
        self._termination = None
        if model.termination is not None:
            self._termination = net(nn.Sequential(*list(model.termination.mlp)[:-1]), (latent,))
        self._policy = net(model.policy.net, (latent,))
        self._q, self._q_target = ensemble(model.q), ensemble(model.q_target)

    def encoder(self, observation: Tensor) -> Tensor:
        """(..., O) to (..., L)."""
        return _apply(self._encoder, observation)

    def dynamics(self, z: Tensor, action: Tensor) -> Tensor:
        """(..., L), (..., A) to (..., L)."""
        return _apply(self._dynamics, z, action)

    def unroll(self, z: Tensor, actions: Tensor) -> Tensor:
        """z (B, L) and actions (H, B, A) to the latents after each of them: (H, B, L)."""
        return self._dynamics(z, actions)[0]

    def reward(self, z: Tensor, action: Tensor) -> Tensor:
        """Logits (..., K)."""
        return _apply(self._reward, z, action)

    def termination(self, z: Tensor) -> Tensor:
        """Logits (...)."""
        assert self.model.termination is not None and self._termination is not None
        last = self.model.termination.mlp[-1]
        return last(_apply(self._termination, z)).squeeze(-1)  # type: ignore[no-any-return]

    def policy(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Raw mean and log standard deviation, (..., A) each."""
        policy = self.model.policy
        h = _apply(self._policy, z)
        return policy.mean_head(h), policy.bounded_log_std(policy.log_std_head(h))

    def q(
        self,
        z: Tensor,
        action: Tensor,
        *,
        heads: Tensor | None = None,
        dropped: Tensor | None = None,
        frozen: bool = False,
        target: bool = False,
    ) -> Tensor:
        """Logits (n, ..., K), as `TrainingModel.q`."""
        ensemble = self.model.q_target if target else self.model.q
        rows = z.reshape(1, -1, z.shape[-1])
        keep = 1.0 if dropped is None else 1 - ensemble.dropout
        net = self._q_target if target else self._q
        extra = action.reshape(1, -1, action.shape[-1])
        logits = net(rows[0], extra, heads=heads, frozen=frozen or target, dropped=dropped, keep=keep)
        return logits.view(logits.shape[0], *z.shape[:-1], -1)

    def stepper(
        self, optimizer: torch.optim.Adam, parts: Mapping[str, Sequence[nn.Parameter]], max_norm: float
    ) -> ClippedStep:
        """What takes the optimizer's steps, as `TrainingModel.stepper`."""
        return NativeClippedStep(self._library, self._backend, optimizer, parts, max_norm)


def _apply(net: TrainedNet, state: Tensor, extra: Tensor | None = None) -> Tensor:
    """(..., S) and (..., E) to (..., O), of a network of one head in one step."""
    lead = state.shape[:-1]
    more = None if extra is None else extra.reshape(1, -1, extra.shape[-1])
    return net(state.reshape(-1, state.shape[-1]), more).view(*lead, net.outputs)


def _one_head(modules: nn.Sequential, pieces: tuple[int, ...]) -> list[list[TiledLayer]]:
    return [sequential(modules, pieces)]


def _all_heads(q: QEnsemble, pieces: tuple[int, ...]) -> list[list[TiledLayer]]:
    return [q_head(q, head, pieces) for head in range(q.heads)]


def _activations(modules: nn.Sequential) -> list[int]:
    """What follows each Linear, a LayerNorm between them aside."""
    kinds: list[int] = []
    for module in modules:
        if isinstance(module, nn.Linear):
            kinds.append(NONE)
        elif isinstance(module, Mish):
            kinds[-1] = MISH
        elif isinstance(module, nn.ReLU):
            kinds[-1] = RELU
        elif isinstance(module, SimNorm):
            kinds[-1] = SOFTMAX
    return kinds
