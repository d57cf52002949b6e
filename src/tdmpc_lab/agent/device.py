"""Choosing the device: one place that turns `auto | cpu | cuda | cuda:N` into a `torch.device`."""

from __future__ import annotations

import re

import torch

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
