"""The compiled library as Python sees it: its structures (as in kernels.h, train.h and learn.h) and its functions."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p, cast
from pathlib import Path
from typing import Any, Literal

Backend = Literal["amx", "avx512", "emulation"]
BACKENDS: tuple[Backend, ...] = ("amx", "avx512", "emulation")  # by their number in the library, fastest first
AMX_NOT_GIVEN = 8
ABI = 3
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


class TwoHotJob(Structure):
    """Arguments of `two_hot` and `two_hot_back`."""

    _fields_ = (
        ("logits", c_void_p),
        ("lower", c_void_p),
        ("share", c_void_p),
        ("loss", c_void_p),
        ("log_sum", c_void_p),
        ("by_loss", c_void_p),
        ("by_logits", c_void_p),
        ("rows", c_int64),
        ("targets", c_int64),
        ("bins", c_int64),
    )


class DecodeJob(Structure):
    """Arguments of `decode` and `decode_back`."""

    _fields_ = (
        ("logits", c_void_p),
        ("centres", c_void_p),
        ("value", c_void_p),
        ("expected", c_void_p),
        ("log_sum", c_void_p),
        ("by_value", c_void_p),
        ("by_logits", c_void_p),
        ("rows", c_int64),
        ("bins", c_int64),
    )


class AdamTensor(Structure):
    """One parameter, its gradient and what the optimizer keeps of it."""

    _fields_ = (
        ("parameter", c_void_p),
        ("gradient", c_void_p),
        ("mean", c_void_p),
        ("square", c_void_p),
        ("count", c_int64),
        ("rate", c_float),
        ("correction", c_float),
        ("part", c_int32),
        ("unused", c_int32),
    )


class AdamJob(Structure):
    """Arguments of `adam`."""

    _fields_ = (
        ("tensors", POINTER(AdamTensor)),
        ("count", c_int64),
        ("norms", c_void_p),
        ("parts", c_int32),
        ("max_norm", c_float),
        ("keep_mean", c_float),
        ("keep_square", c_float),
        ("eps", c_float),
        ("unused", c_int32),
    )


def openmp_parallel() -> int | None:
    """Address of `GOMP_parallel` in the OpenMP library that torch has loaded; None where there is none."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
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
        rolling = [c_int32, c_int64, c_int32, c_void_p]  # backend, rows of a block, threads, scratch memory
        training = [POINTER(TrainNet), POINTER(TrainJob)]
        self.workspace = _function(library.tdmpc_workspace, POINTER(Model), c_int64, c_int32, result=c_int64)
        self.roll = _function(library.tdmpc_roll, POINTER(Model), POINTER(RollJob), *rolling)
        self.terminal = _function(library.tdmpc_terminal, POINTER(Model), POINTER(TerminalJob), *rolling)
        self.pack = _function(library.tdmpc_pack, POINTER(PackJob), c_int64, c_int32, c_int32)
        self.apply = _function(library.tdmpc_apply, c_int32, c_void_p, c_int64, c_int32)
        self.tape_bytes = _function(library.tdmpc_tape_bytes, *training, result=c_int64)
        self.memory_bytes = _function(library.tdmpc_memory_bytes, *training, result=c_int64)
        self.train_workspace = _function(
            library.tdmpc_train_workspace, POINTER(TrainNet), c_int64, c_int32, result=c_int64
        )
        self.forward = _function(library.tdmpc_forward, *training, c_int32, c_int32, c_void_p)
        self.backward = _function(library.tdmpc_backward, *training, c_int32, c_int32, c_void_p)
        self.two_hot = _function(library.tdmpc_two_hot, POINTER(TwoHotJob), c_int32, c_int32)
        self.two_hot_back = _function(library.tdmpc_two_hot_back, POINTER(TwoHotJob), c_int32, c_int32)
        self.decode = _function(library.tdmpc_decode, POINTER(DecodeJob), c_int32, c_int32)
        self.decode_back = _function(library.tdmpc_decode_back, POINTER(DecodeJob), c_int32, c_int32)
        self.adam = _function(library.tdmpc_adam, POINTER(AdamJob), c_int32, c_int32)
        self.use_threads = _function(library.tdmpc_use_threads, c_void_p)
        self.use_threads(openmp_parallel())
        found = _function(library.tdmpc_backends, result=c_int32)()
        self.backends: tuple[Backend, ...] = tuple(name for i, name in enumerate(BACKENDS) if found >> i & 1)
        """Those that this processor can run, fastest first."""
        self.amx_not_given = bool(found & AMX_NOT_GIVEN)
        """The processor has AMX, but the system does not let this process use it."""


def _function(function: Any, *arguments: Any, result: Any = None) -> Any:
    """A function of the library, told what it takes and gives."""
    function.argtypes, function.restype = arguments, result
    return function
