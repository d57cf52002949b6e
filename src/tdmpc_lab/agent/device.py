"""The device an agent runs on, and the type its products are computed in, with the reason: `agent.precision`."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from tdmpc_lab.config.schema import Precision
from tdmpc_lab.errors import ConfigError, ExternalError


def resolve_device(name: str = "auto") -> torch.device:
    """The device behind `name`.

    `auto` is the current CUDA device where there is one, else the CPU.

    Raises:
        ConfigError: the name is none of `auto`, `cpu`, `cuda`, `cuda:N`.
        ExternalError: CUDA was asked for by name and is not there, or has no device N.
    """
    if name == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    if name == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if match is None:
        raise ConfigError(f"device {name!r} is not known; allowed: auto, cpu, cuda, cuda:N")
    if not torch.cuda.is_available():
        raise ExternalError(
            f"device {name!r} was asked for, but torch {torch.__version__} sees no CUDA device here; "
            "use device auto or cpu, or run on a node with a GPU and a CUDA build of torch"
        )
    index = int(match[1]) if match[1] is not None else torch.cuda.current_device()
    if index >= torch.cuda.device_count():
        raise ExternalError(f"device {name!r} was asked for, but there are only {torch.cuda.device_count()} here")
    return torch.device("cuda", index)


def describe_torch() -> str:
    """Version, threads and CUDA devices, in one line."""
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
        devices = f"no CUDA device here ({built})"
    else:
        names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        devices = ", ".join(f"{p.name} ({p.total_memory / 2**30:.0f} GiB)" for p in names)
    return f"{torch.__version__}, {torch.get_num_threads()} threads, {devices}"


NARROW = 256  # products of narrower layers cost less than what a change of type adds around them
ROWS = 512
WORTH_IT = 1.2  # bfloat16 has to be this much faster, its conversions included
ROUNDS = 25

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ChosenPrecision:
    """Types of the products. Sums, parameters, LayerNorm and everything about values are float32 in any case."""

    name: Precision  # never `auto`
    reason: str
    """In words, for the job's log."""

    @property
    def planning(self) -> torch.dtype:
        """Of the planner's products."""
        return _TYPES[self.name]

    @property
    def updating(self) -> torch.dtype:
        """Of the update's. Gradients are too small for float16 without scaling, so those stay in float32."""
        return torch.float32 if self.name == "float16" else _TYPES[self.name]

    def __str__(self) -> str:
        update = ", updates in float32" if self.name == "float16" else ""
        return f"torch's products in {self.name}{update}: {self.reason}"


def choose_precision(wanted: Precision, device: torch.device, width: int) -> ChosenPrecision:
    """What `wanted` means for layers of `width` on `device`.

    `auto` on CUDA goes by the compute capability. On a CPU one product is timed in both types, once per process and
    width, except for layers so narrow that the outcome is known: there nothing depends on a measurement.
    """
    if wanted != "auto":
        return ChosenPrecision(wanted, "as the spec says")
    if device.type == "cuda":
        return _by_capability(torch.cuda.get_device_capability(device))
    if width < NARROW:
        return ChosenPrecision("float32", f"layers of {width} are too narrow to gain from less")
    return _by_measurement(width)


def _by_capability(capability: tuple[int, int]) -> ChosenPrecision:
    """bfloat16 from Ampere (8.0) on, float16 on Volta and Turing (7.x), which have no bfloat16."""
    of = f"compute capability {capability[0]}.{capability[1]}"
    if capability >= (8, 0):
        return ChosenPrecision("bfloat16", of)
    if capability >= (7, 0):
        return ChosenPrecision("float16", f"{of} has no bfloat16")
    return ChosenPrecision("float32", f"{of} has neither fast bfloat16 nor float16")


@cache
def _by_measurement(width: int) -> ChosenPrecision:
    """By the fastest of some products in each type by turns, on one thread: several that wait for each other on a busy
    machine would measure the waiting."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pairs = [(product_ms(width, torch.float32), product_ms(width, torch.bfloat16)) for _ in range(ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    full, low = (min(times) for times in zip(*pairs, strict=True))
    product = f"a product of {ROWS} × {width} × {width}"
    times = f"{product} took {low:.2f} ms in bfloat16 and {full:.2f} ms in float32 on one thread"
    return ChosenPrecision("bfloat16" if full > WORTH_IT * low else "float32", times)


@torch.inference_mode()
def product_ms(width: int, dtype: torch.dtype) -> float:
    """Milliseconds of one product of ROWS rows with both conversions, from float32 and back, where there are any."""
    x, weight = torch.ones(ROWS, width), torch.ones(width, width, dtype=dtype)
    out = torch.empty(ROWS, width, dtype=dtype)
    torch.mm(x.to(dtype), weight, out=out)  # the first call sets up
    start = time.perf_counter()
    torch.mm(x.to(dtype), weight, out=out)
    out.float()
    return 1000 * (time.perf_counter() - start)


def machine(device: torch.device) -> str:
    """What a measurement holds for: the processor's name, or the GPU's."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor")
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}"
