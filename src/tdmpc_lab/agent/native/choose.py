"""Which way planning and updates run here, native kernels or torch, and why: decided once for a process."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import get_args

import torch

from tdmpc_lab.agent import graphs
from tdmpc_lab.agent.native.build import UnavailableError, library_path, processor
from tdmpc_lab.agent.native.library import BACKENDS, MAX_LAYERS, Backend, Library, keep_freed_memory
from tdmpc_lab.agent.native.rollouts import NativeRollouts
from tdmpc_lab.agent.native.selftest import GOOD, verdict
from tdmpc_lab.agent.native.training import NativeTrainingModel
from tdmpc_lab.agent.packed_rollouts import PackedRollouts
from tdmpc_lab.agent.rollouts import Rollouts
from tdmpc_lab.agent.training_model import TrainingModel
from tdmpc_lab.agent.world_model import WorldModel
from tdmpc_lab.config.schema import AgentConfig

VARIABLE = "TDMPC_LAB_KERNELS"
"""Overrules a spec's `auto`: `torch`, `native`, or for tests a way of multiplying by its name."""
WAYS: dict[Backend, str] = {
    "amx": "AMX tiles",
    "avx512": "AVX-512 with bfloat16",
    "emulation": "emulated tiles, for tests",
}


@dataclass(frozen=True)
class Kernels:
    """What was chosen. `library` and `backend` are there for native kernels only; `captured`: in CUDA graphs."""

    why: str
    library: Library | None = None
    backend: Backend | None = None
    captured: bool = False

    def __str__(self) -> str:
        """One line for logs and records."""
        return f"native kernels ({self.why})" if self.library is not None else f"torch ({self.why})"


def choose(config: AgentConfig, device: torch.device) -> Kernels:
    """The kernels for an agent on `device`. Compiles and tests them if nobody has on this kind of processor."""
    named = os.environ.get(VARIABLE, "") if config.kernels == "auto" else config.kernels
    if device.type != "cpu":
        return _on_gpu(config, device)
    if named == "torch":
        return Kernels("agent.kernels: torch" if config.kernels == "torch" else f"{VARIABLE}=torch")
    if config.precision not in ("auto", "bfloat16"):
        return Kernels(f"agent.precision: {config.precision}")
    if config.hidden_layers >= MAX_LAYERS:
        return Kernels(f"native kernels are for less than {MAX_LAYERS} hidden layers")
    kernels = _found(next((backend for backend in BACKENDS if backend == named), None))
    return Kernels(f"no native kernels: {kernels}") if isinstance(kernels, str) else kernels


def _on_gpu(config: AgentConfig, device: torch.device) -> Kernels:
    if config.cuda_graphs == "never" or device.type != "cuda":
        return Kernels("call by call")
    found = "as the spec says" if config.cuda_graphs == "always" else graphs.verdict(str(device))
    if config.cuda_graphs == "auto" and found != graphs.GOOD:
        return Kernels(f"call by call; CUDA graphs: {found}")
    return Kernels("captured in CUDA graphs", captured=True)


def make_rollouts(
    kernels: Kernels, model: WorldModel, *, horizon: int, discount: float, dtype: torch.dtype, pessimism: float
) -> Rollouts:
    """What the planner asks, in the chosen kernels; `dtype` is what torch's products are in."""
    if kernels.library is None or kernels.backend is None:
        return PackedRollouts(model, horizon=horizon, discount=discount, dtype=dtype, pessimism=pessimism)
    return NativeRollouts(
        kernels.library, kernels.backend, model, horizon=horizon, discount=discount, pessimism=pessimism
    )


def make_nets(kernels: Kernels, model: WorldModel, dtype: torch.dtype) -> TrainingModel:
    """What the learner asks, in the chosen kernels; `dtype` is what torch's products are in."""
    if kernels.library is None or kernels.backend is None:
        return TrainingModel(model, dtype)
    return NativeTrainingModel(kernels.library, kernels.backend, model)


@functools.cache
def _found(only: Backend | None) -> Kernels | str:
    try:
        return _first_good(only)
    except UnavailableError as error:
        return str(error)


def _first_good(only: Backend | None) -> Kernels:
    """The fastest way of multiplying that this processor has and that passes its test.

    Raises UnavailableError.
    """
    if only is None:
        _check_processor()
    try:
        library = Library(library_path())
    except OSError as error:
        raise UnavailableError(f"the compiled library can't be loaded: {error}") from error
    wanted = (only,) if only is not None else ("amx", "avx512")
    problems = ["AMX tiles: the system does not let this process use them"] if library.amx_not_given else []
    for backend in wanted:
        if backend in library.backends:
            found = verdict(library, backend)
            if found == GOOD:
                keep_freed_memory()
                return Kernels("; ".join([WAYS[backend], *problems]), library, backend)
            problems.append(f"{WAYS[backend]}: {found}")
    raise UnavailableError("; ".join(problems) or "this processor has no products of bfloat16")


def _check_processor() -> None:
    """Nothing is compiled for a processor that can't use it. Raises UnavailableError."""
    if "avx512_bf16" not in processor()["features"].split():
        raise UnavailableError("this processor has no products of bfloat16 (AMX or AVX-512)")


assert set(WAYS) == set(get_args(Backend))
