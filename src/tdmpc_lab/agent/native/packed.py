"""Weights in the kernels' layout, brought up to date whenever torch has changed them.

The layers of every network are described here once, for planning (`PackedModel`) and for training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tdmpc_lab.agent.native.library import BACKENDS, MAX_LAYERS, Backend, Library, Linear, Model, Net, PackJob
from tdmpc_lab.agent.networks import QEnsemble
from tdmpc_lab.agent.policy import Policy
from tdmpc_lab.agent.world_model import WorldModel

TILE = 32
NEVER = -1e30  # bias of a bin that is none: its softmax weight is 0


def padded(n: int) -> int:
    """Up to whole tiles."""
    return -(-n // TILE) * TILE


@dataclass
class Part:
    """Rows of one layer: weight as (outputs, inputs) in any strides, its inputs in pieces that begin a tile each."""

    weight: Tensor
    bias: Tensor
    gain: Tensor | None = None
    shift: Tensor | None = None


@dataclass
class TiledLayer:
    """A Linear in one or more parts, with the LayerNorm that follows it."""

    parts: list[Part]
    pieces: tuple[int, ...]  # sizes of the input's pieces
    fill: float = 0.0
    outputs: int = field(init=False)
    input_tiles: int = field(init=False)

    def __post_init__(self) -> None:
        self.outputs = sum(part.weight.shape[0] for part in self.parts)
        self.input_tiles = sum(padded(size) for size in self.pieces) // TILE


class Packer:
    """Lays out memory for layers, and copies weights into it when asked.

    Args:
        weights: all tensors that the layers are made of; when one was written to, `refresh` packs again.
    """

    def __init__(self, library: Library, backend: Backend, weights: Sequence[Tensor]) -> None:
        self.library = library
        self.backend = BACKENDS.index(backend)
        self._weights = list(weights)
        self._state: tuple[tuple[int, int], ...] = ()
        self._laid_out: list[int] = []
        self._jobs: list[PackJob] = []
        self._all_jobs = (PackJob * 0)()
        self._memory: list[Tensor] = []

    def moved(self) -> bool:
        """Whether weights lie elsewhere than when the layers were laid out: then all is to be laid out anew."""
        return [p.data_ptr() for p in self._weights] != self._laid_out

    def begin(self) -> None:
        """Forget all layers: they follow anew."""
        self._jobs, self._memory = [], []

    def end(self) -> None:
        """All layers are there."""
        self._all_jobs = (PackJob * len(self._jobs))(*self._jobs)
        self._laid_out = [p.data_ptr() for p in self._weights]
        self._state = ()

    def refresh(self) -> None:
        """Pack if any weight was written to since the last time."""
        state = tuple((p.data_ptr(), p._version) for p in self._weights)
        if state != self._state:
            self.library.pack(self._all_jobs, len(self._all_jobs), self.backend, torch.get_num_threads())
            self._state = state

    def keep(self, tensor: Tensor) -> int:
        """The tensor's address; it stays in memory as long as the layers."""
        self._memory.append(tensor)
        return tensor.data_ptr()

    def linear(self, layer: TiledLayer) -> Linear:
        """Memory for one layer, and what has to be copied there."""
        width = padded(layer.outputs)
        linear = Linear()
        linear.outputs, linear.outputs_padded, linear.input_tiles = layer.outputs, width, layer.input_tiles
        linear.last_pairs = (layer.pieces[-1] - (padded(layer.pieces[-1]) - TILE) + 1) // 2
        linear.weight = self.keep(torch.zeros(width * layer.input_tiles * TILE, dtype=torch.bfloat16))
        linear.bias = self.keep(torch.zeros(width))
        if layer.parts[0].gain is not None:
            linear.gain, linear.shift = self.keep(torch.zeros(width)), self.keep(torch.zeros(width))
        at = 0
        for part in layer.parts:
            count = part.weight.shape[0]
            begin, tile = 0, 0
            for size in layer.pieces:
                job = self._job(part.weight[:, begin:], linear.weight, count, at)
                job.output_stride, job.input_stride = part.weight.stride()
                job.inputs, job.input_tiles, job.tile = size, layer.input_tiles, tile
                begin, tile = begin + size, tile + padded(size) // TILE
            last = at + count == layer.outputs
            for source, target, fill in (
                (part.bias, linear.bias, layer.fill),
                (part.gain, linear.gain, 0.0),
                (part.shift, linear.shift, 0.0),
            ):
                if source is not None:
                    job = self._job(source, target, count, at)
                    job.outputs_padded, job.fill = (width if last else 0), fill
            at += count
        return linear

    def turned(self, layer: TiledLayer) -> int:
        """Address of a layer's weights packed the other way round, for the gradient by its inputs: a row of outputs
        times this is a row of inputs, every piece of which begins a tile."""
        (part,) = layer.parts
        width = padded(layer.outputs)
        target = self.keep(torch.zeros(width * layer.input_tiles * TILE, dtype=torch.bfloat16))
        begin, at = 0, 0
        for size in layer.pieces:
            job = self._job(part.weight[:, begin:], target, size, at)
            job.input_stride, job.output_stride = part.weight.stride()
            job.inputs, job.input_tiles, job.tile = layer.outputs, width // TILE, 0
            begin, at = begin + size, at + padded(size)
        return target

    def _job(self, source: Tensor, target: int, outputs: int, at: int) -> PackJob:
        job = PackJob()
        job.source, job.target, job.outputs, job.at = source.data_ptr(), target, outputs, at
        self._jobs.append(job)
        return job


class TiledModel:
    """All that planning uses. The structures that the kernels read are in `model`.

    Raises:
        ValueError: the model has more layers than the kernels are made for.
    """

    def __init__(self, library: Library, backend: Backend, world_model: WorldModel) -> None:
        self.backend = BACKENDS.index(backend)
        self.world_model = world_model
        parts = (world_model.dynamics, world_model.reward, world_model.termination, world_model.policy, world_model.q)
        weights = [p for part in parts if part is not None for p in part.parameters()]
        self._packer = Packer(library, backend, weights)
        self._lay_out()

    def refresh(self) -> None:
        """Pack again if any weight was changed or moved since the last time."""
        if self._packer.moved():
            self._lay_out()
        self._packer.refresh()

    def _lay_out(self) -> None:
        """Memory for everything, and the structures that point into it."""
        model, world, packer = Model(), self.world_model, self._packer
        packer.begin()
        latent, action = world.latent_dim, world.action_dim
        both, alone = (latent, action), (latent,)
        nets = {
            "dynamics": sequential(world.dynamics.net, both),
            "reward": sequential(world.reward.net, both, fill=NEVER),
            "termination": [] if world.termination is None else sequential(world.termination.mlp, alone),
            "policy": _policy(world.policy, alone),
        }
        heads = [q_head(world.q, i, both) for i in range(world.q.heads)]
        if any(len(layers) > MAX_LAYERS for layers in (*nets.values(), *heads)):
            raise ValueError(f"more than {MAX_LAYERS - 1} hidden layers")
        for name, layers in nets.items():
            setattr(model, name, self._net(layers))
        self._heads = (Net * len(heads))(*(self._net(layers) for layers in heads))
        model.q = self._heads
        centres = torch.zeros(padded(world.regression.bins))
        centres[: world.regression.bins] = world.regression.centres
        model.centres = packer.keep(centres)
        model.latent, model.action, model.group = latent, action, world.dynamics.simnorm.group
        model.latent_tiles, model.action_tiles = padded(latent) // TILE, padded(action) // TILE
        every = [*nets.values(), *heads]
        model.hidden_tiles = max(padded(layer.outputs) for layers in every for layer in layers[:-1]) // TILE
        model.outputs_padded = max(padded(layer.outputs) for layers in every for layer in layers)
        model.clipped = int(world.policy.head == "clipped_gaussian")
        model.log_std_min, model.log_std_max = world.policy.log_std_min, world.policy.log_std_max
        model.eps = world.q.eps
        self.model = model
        packer.end()

    def _net(self, layers: list[TiledLayer]) -> Net:
        net = Net()
        net.count = len(layers)
        for i, layer in enumerate(layers):
            net.layers[i] = self._packer.linear(layer)
        return net


def sequential(net: nn.Sequential, pieces: tuple[int, ...], *, fill: float = 0.0) -> list[TiledLayer]:
    """Linear layers with the norms that follow them. The last one's bias is `fill` beyond its outputs."""
    layers: list[TiledLayer] = []
    for module in net:
        if isinstance(module, nn.Linear):
            size = pieces if not layers else (module.in_features,)
            layers.append(TiledLayer([Part(module.weight.detach(), module.bias.detach())], size))
        elif isinstance(module, nn.LayerNorm):
            part = layers[-1].parts[0]
            part.gain, part.shift = module.weight.detach(), module.bias.detach()
    layers[-1].fill = fill
    return layers


def _policy(policy: Policy, pieces: tuple[int, ...]) -> list[TiledLayer]:
    """The policy's two heads are one last layer: means, then raw log standard deviations."""
    heads = (policy.mean_head, policy.log_std_head)
    parts = [Part(head.weight.detach(), head.bias.detach()) for head in heads]
    return [*sequential(policy.net, pieces), TiledLayer(parts, (heads[0].in_features,))]


def q_head(q: QEnsemble, head: int, pieces: tuple[int, ...]) -> list[TiledLayer]:
    """One head of the ensemble, whose weights lie as (inputs, outputs)."""
    layers = []
    for i, (weight, bias) in enumerate(zip(q.weights, q.biases, strict=True)):
        part = Part(weight.detach()[head].T, bias.detach()[head, 0])
        if i < len(q.norm_weights):
            part.gain = q.norm_weights[i].detach()[head, 0]
            part.shift = q.norm_biases[i].detach()[head, 0]
        layers.append(TiledLayer([part], pieces if i == 0 else (weight.shape[1],)))
    layers[-1].fill = NEVER
    return layers
