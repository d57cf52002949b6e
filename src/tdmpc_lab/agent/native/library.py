"""The compiled library as Python sees it: its structures (as in kernels.h and train.h) and its functions."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p, cast
from pathlib import Path
from typing import Literal

Backend = Literal["amx", "avx512", "emulation"]
BACKENDS: tuple[Backend, ...] = ("amx", "avx512", "emulation")  # by their number in the library, fastest first
AMX_NOT_GIVEN = 8
ABI = 2
MAX_LAYERS = 16
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of malloc.h


class Linear(Structure):
    """One packed layer."""

    _fields_ = (
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("gain", c_void_p),
        ("shift", c_void_p),
        ("input_tiles", c_int32),
        ("outputs", c_int32),
        ("outputs_padded", c_int32),
        ("last_pairs", c_int32),
    )


class Net(Structure):
    """Layers one after another."""

    _fields_ = (("layers", Linear * MAX_LAYERS), ("count", c_int32), ("unused", c_int32))


class Model(Structure):
    """All nets that planning uses, and the numbers that go with them."""

    _fields_ = (
        ("dynamics", Net),
        ("reward", Net),
        ("termination", Net),
        ("policy", Net),
        ("q", POINTER(Net)),
        ("centres", c_void_p),
        ("latent", c_int32),
        ("action", c_int32),
        ("group", c_int32),
        ("latent_tiles", c_int32),
        ("action_tiles", c_int32),
        ("hidden_tiles", c_int32),
        ("outputs_padded", c_int32),
        ("clipped", c_int32),
        ("log_std_min", c_float),
        ("log_std_max", c_float),
        ("eps", c_float),
        ("unused", c_int32),
    )


class RollJob(Structure):
    """Arguments of `roll`."""

    _fields_ = (
        ("z", c_void_p),
        ("noise", c_void_p),
        ("actions", c_void_p),
        ("discounts", c_void_p),
        ("value", c_void_p),
        ("alive", c_void_p),
        ("last", c_void_p),
        ("envs", c_int64),
        ("samples", c_int64),
        ("horizon", c_int64),
    )


class TerminalJob(Structure):
    """Arguments of `terminal`."""

    _fields_ = (
        ("last", c_void_p),
        ("noise", c_void_p),
        ("value", c_void_p),
        ("rows", c_int64),
        ("heads", c_int32 * 2),
    )


class PackJob(Structure):
    """One matrix or vector to be laid out for the kernels."""

    _fields_ = (
        ("source", c_void_p),
        ("target", c_void_p),
        ("output_stride", c_int64),
        ("input_stride", c_int64),
        ("outputs", c_int32),
        ("inputs", c_int32),
        ("outputs_padded", c_int32),
        ("input_tiles", c_int32),
        ("at", c_int32),
        ("tile", c_int32),
        ("fill", c_float),
        ("unused", c_int32),
    )


class TrainLayer(Structure):
    """One packed layer of a net that is trained."""

    _fields_ = (("linear", Linear), ("turned", c_void_p), ("activation", c_int32), ("unused", c_int32))


class TrainNet(Structure):
    """A net that is trained, or several heads of one."""

    _fields_ = (
        ("layers", POINTER(TrainLayer)),
        ("heads", c_int32),
        ("count", c_int32),
        ("state", c_int32),
        ("extra", c_int32),
        ("state_tiles", c_int32),
        ("extra_tiles", c_int32),
        ("group", c_int32),
        ("inputs_first", c_int32),
        ("eps", c_float),
        ("unused", c_int32),
    )


class Gradient(Structure):
    """Where the gradients by one layer's parameters go."""

    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("gain", c_void_p), ("shift", c_void_p))


class TrainJob(Structure):
    """Arguments of `forward` and `backward`."""

    _fields_ = (
        ("state", c_void_p),
        ("extra", c_void_p),
        ("out", c_void_p),
        ("tape", c_void_p),
        ("dropped", c_void_p),
        ("dropped_count", c_int64),
        ("rows", c_int64),
        ("steps", c_int64),
        ("keep_scale", c_float),
        ("taped", c_int32),
        ("by_out", c_void_p),
        ("by_state", c_void_p),
        ("by_extra", c_void_p),
        ("gradients", POINTER(Gradient)),
        ("memory", c_void_p),
        ("block", c_int64),
    )


def openmp_parallel() -> int | None:
    """Address of `GOMP_parallel` in the OpenMP library that torch has loaded; None where there is none."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    entries = (line.split(maxsplit=5) for line in lines)
    loaded = {entry[5] for entry in entries if len(entry) == 6}
    for path in sorted(loaded):
        if Path(path).name.startswith(("libgomp", "libiomp")):
            try:
                return cast(ctypes.CDLL(path).GOMP_parallel, c_void_p).value
            except (OSError, AttributeError):
                continue
    return None


def keep_freed_memory() -> None:
    """Have the C library keep what is freed instead of giving it back to the system, where it can be told to (glibc).

    An update takes and frees the same tens of megabytes each time; new pages cost more than a tenth of a small one.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option, value in ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, (1 << 31) - 1), (M_TOP_PAD, 64 << 20)):
            libc.mallopt(option, value)


class Library:
    """A compiled library.

    Raises:
        OSError: the file is no library, or one of other kernels.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        library = ctypes.CDLL(str(path))
        try:
            library.tdmpc_abi.restype = c_int32
            abi = library.tdmpc_abi()
        except AttributeError as error:
            raise OSError(f"{path} is not a library of these kernels") from error
        if abi != ABI:
            raise OSError(f"{path} holds kernels of another version ({abi}, wanted {ABI})")
        library.tdmpc_backends.restype = c_int32
        library.tdmpc_workspace.restype = c_int64
        library.tdmpc_workspace.argtypes = [POINTER(Model), c_int64, c_int32]
        for name, job in (("roll", RollJob), ("terminal", TerminalJob)):
            function = getattr(library, f"tdmpc_{name}")
            function.restype = None
            function.argtypes = [POINTER(Model), POINTER(job), c_int32, c_int64, c_int32, c_void_p]
        library.tdmpc_pack.restype = None
        library.tdmpc_pack.argtypes = [POINTER(PackJob), c_int64, c_int32, c_int32]
        for name in ("tape_bytes", "memory_bytes"):
            function = getattr(library, f"tdmpc_{name}")
            function.restype = c_int64
            function.argtypes = [POINTER(TrainNet), POINTER(TrainJob)]
        library.tdmpc_train_workspace.restype = c_int64
        library.tdmpc_train_workspace.argtypes = [POINTER(TrainNet), c_int64, c_int32]
        for name in ("forward", "backward"):
            function = getattr(library, f"tdmpc_{name}")
            function.restype = None
            function.argtypes = [POINTER(TrainNet), POINTER(TrainJob), c_int32, c_int32, c_void_p]
        self.tape_bytes = library.tdmpc_tape_bytes
        self.memory_bytes = library.tdmpc_memory_bytes
        self.train_workspace = library.tdmpc_train_workspace
        self.forward = library.tdmpc_forward
        self.backward = library.tdmpc_backward
        self.workspace = library.tdmpc_workspace
        library.tdmpc_use_threads.restype = None
        library.tdmpc_use_threads.argtypes = [c_void_p]
        self.use_threads = library.tdmpc_use_threads
        self.use_threads(openmp_parallel())
        self.roll = library.tdmpc_roll
        self.terminal = library.tdmpc_terminal
        library.tdmpc_apply.restype = None
        library.tdmpc_apply.argtypes = [c_int32, c_void_p, c_int64, c_int32]
        self.pack = library.tdmpc_pack
        self.apply = library.tdmpc_apply
        found = library.tdmpc_backends()
        self.backends: tuple[Backend, ...] = tuple(name for i, name in enumerate(BACKENDS) if found >> i & 1)
        """Those that this processor can run, fastest first."""
        self.amx_not_given = bool(found & AMX_NOT_GIVEN)
        """The processor has AMX, but the system does not let this process use it."""
