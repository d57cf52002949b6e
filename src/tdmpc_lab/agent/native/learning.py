"""What an update does besides its networks in the compiled kernels: two-hot losses, decoded values, Adam's step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import byref
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tdmpc_lab.agent.clipped_step import ClippedStep
from tdmpc_lab.agent.native.library import AdamJob, AdamTensor, DecodeJob, Library, TwoHotJob
from tdmpc_lab.agent.regression import DiscreteRegression


class NativeRegression(DiscreteRegression):
    """`DiscreteRegression` for float32 logits in the processor's memory.

    `backend` is the way of multiplying by its number in the library; what is done here needs no products.
    """

    def __init__(self, library: Library, backend: int, like: DiscreteRegression) -> None:
        super().__init__(bins=like.bins, low=like.low, high=like.high)
        self.library = library
        self.backend = backend

    def loss(self, logits: Tensor, value: Tensor) -> Tensor:
        """Cross-entropy of softmax(logits (..., bins)) with the two-hot target of `value`: (...).

        `value` broadcasts to (...) in the first dimensions; they may be missing.
        """
        missing = logits.dim() - 1 - value.dim()
        if value.shape != logits.shape[missing:-1]:
            value = value.expand(logits.shape[:-1])
        lower, share = self._neighbours(value)
        return _NativeTwoHotLoss.apply(self, logits, lower, share)  # type: ignore[no-any-return, no-untyped-call]

    def decode(self, logits: Tensor) -> Tensor:
        """Logits (..., bins) to numbers (...): symexp of the expected bin."""
        return _Decoded.apply(self, logits)  # type: ignore[no-any-return, no-untyped-call]


class _NativeTwoHotLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, regression: NativeRegression, logits: Tensor, lower: Tensor, share: Tensor) -> Tensor:
        logits, lower, share = logits.contiguous(), lower.contiguous(), share.contiguous()
        loss, log_sum = logits.new_empty(2, *logits.shape[:-1])
        ctx.regression = regression
        ctx.save_for_backward(logits, lower, share, log_sum)
        job = _two_hot_job(logits, lower, share, log_sum)
        job.loss = loss.data_ptr()
        regression.library.two_hot(byref(job), regression.backend, torch.get_num_threads())
        return loss  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_loss: Tensor) -> tuple[Tensor | None, ...]:
        logits, *others = ctx.saved_tensors
        by_loss, by_logits = by_loss.contiguous(), torch.empty_like(logits)
        job = _two_hot_job(logits, *others)
        job.by_loss, job.by_logits = by_loss.data_ptr(), by_logits.data_ptr()
        regression = ctx.regression
        regression.library.two_hot_back(byref(job), regression.backend, torch.get_num_threads())
        return None, by_logits, None, None


def _two_hot_job(logits: Tensor, lower: Tensor, share: Tensor, log_sum: Tensor) -> TwoHotJob:
    job = TwoHotJob()
    job.logits, job.lower, job.share = logits.data_ptr(), lower.data_ptr(), share.data_ptr()
    job.log_sum = log_sum.data_ptr()
    job.rows, job.targets, job.bins = log_sum.numel(), lower.numel(), logits.shape[-1]
    return job


class _Decoded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, regression: NativeRegression, logits: Tensor) -> Tensor:
        logits = logits.contiguous()
        value, expected, log_sum = logits.new_empty(3, *logits.shape[:-1])
        ctx.regression = regression
        ctx.save_for_backward(logits, expected, log_sum)
        job = _decode_job(regression, logits, expected, log_sum)
        job.value = value.data_ptr()
        regression.library.decode(byref(job), regression.backend, torch.get_num_threads())
        return value  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_value: Tensor) -> tuple[None, Tensor]:
        logits, expected, log_sum = ctx.saved_tensors
        by_value, by_logits = by_value.contiguous(), torch.empty_like(logits)
        regression = ctx.regression
        job = _decode_job(regression, logits, expected, log_sum)
        job.by_value, job.by_logits = by_value.data_ptr(), by_logits.data_ptr()
        regression.library.decode_back(byref(job), regression.backend, torch.get_num_threads())
        return None, by_logits


def _decode_job(regression: NativeRegression, logits: Tensor, expected: Tensor, log_sum: Tensor) -> DecodeJob:
    job = DecodeJob()
    job.logits, job.centres = logits.data_ptr(), regression.centres.data_ptr()
    job.expected, job.log_sum = expected.data_ptr(), log_sum.data_ptr()
    job.rows, job.bins = log_sum.numel(), logits.shape[-1]
    return job


class NativeClippedStep(ClippedStep):
    """`ClippedStep` in two passes over the memory: one for the norms, one that clips, steps and writes.

    The optimizer keeps its state as torch's own step does, so either can continue where the other stopped.
    """

    def __init__(
        self,
        library: Library,
        backend: int,
        optimizer: torch.optim.Adam,
        parts: Mapping[str, Sequence[nn.Parameter]],
        max_norm: float,
    ) -> None:
        super().__init__(optimizer, parts, max_norm)
        self.library = library
        self.backend = backend
        self._part = [i for i, members in enumerate(parts.values()) for _ in members]
        self._known: tuple[object, list[int]] | None = None  # the state and the places that the entries are made of
        self._entries: Any = None  # of AdamTensor
        self._groups: list[dict[str, Any]] = []  # every parameter's settings
        self._steps = torch.zeros(0)  # the optimizer's own count for every parameter, in one place
        self._counts: list[int] = []  # the same as numbers

    def __call__(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Clip and step; the gradients' norms before clipping, of all and by part."""
        if any(p.grad is None for p in self.parameters):  # those are left out, which torch does
            self._known = None
            return super().__call__()
        gradients = [p.grad.contiguous() for p in self.parameters]  # type: ignore[union-attr]
        self._refresh()
        self._steps += 1
        self._counts = [count + 1 for count in self._counts]
        for entry, gradient, group, count in zip(self._entries, gradients, self._groups, self._counts, strict=True):
            keep_mean, keep_square = group["betas"]
            entry.gradient = gradient.data_ptr()
            entry.rate = group["lr"] / (1 - keep_mean**count)
            entry.correction = (1 - keep_square**count) ** 0.5
        norms = torch.empty(len(self.parts) + 1)
        job = AdamJob(self._entries, len(self._entries), norms.data_ptr(), len(self.parts), self.max_norm)
        job.keep_mean, job.keep_square = self._groups[0]["betas"]
        job.eps = self._groups[0]["eps"]
        self.library.adam(byref(job), self.backend, torch.get_num_threads())
        self.written()
        *by_part, total = norms.unbind()
        return total, dict(zip(self.parts, by_part, strict=True))

    def _refresh(self) -> None:
        """Make the entries again if parameters or the optimizer's state are not where they were."""
        places = [p.data_ptr() for p in self.parameters]
        state = self.optimizer.state
        if self._known is not None and self._known[0] is state and self._known[1] == places:
            return
        group_of = {p: group for group in self.optimizer.param_groups for p in group["params"]}
        self._groups = [group_of[p] for p in self.parameters]
        entries = (AdamTensor * len(places))()
        counts = []
        for entry, parameter, part in zip(entries, self.parameters, self._part, strict=True):
            kept = state[parameter]
            if not kept:  # as torch begins
                kept["step"] = torch.zeros(())
                kept["exp_avg"], kept["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            entry.parameter, entry.count, entry.part = parameter.data_ptr(), parameter.numel(), part
            entry.mean, entry.square = kept["exp_avg"].data_ptr(), kept["exp_avg_sq"].data_ptr()
            counts.append(int(kept["step"]))
        self._counts, self._steps = counts, torch.tensor(counts, dtype=torch.float32)
        for parameter, step in zip(self.parameters, self._steps, strict=True):
            state[parameter]["step"] = step
        self._entries, self._known = entries, (state, places)
