"""What an environment changes for the whole process is its own: training gets back what it had, after every call.

Modules of environments set torch's default number type, switch gradients off, change the working directory or take
over signals. Left like that, the agent is built of the wrong numbers, nothing is learned, or a job does not hear that
its time is up. What was changed is there again when the environment is called the next time, not signals and threads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

_LOG = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class _Setting(NamedTuple):
    """One thing that holds for the whole process."""

    read: Callable[[], Any]
    write: Callable[[Any], object]


def _working_directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - as quick as can be: it is asked at every step
    except FileNotFoundError:
        return None


def _change_directory(folder: str | None) -> None:
    if folder is not None:
        with contextlib.suppress(OSError):  # it was removed: there is nothing to go back to
            os.chdir(folder)


def _handlers() -> tuple[Any, ...]:
    return tuple(map(signal.getsignal, _SIGNALS))


def _handle(handlers: tuple[Any, ...]) -> None:
    if threading.current_thread() is threading.main_thread():  # Python lets no other set them
        for number, handler in zip(_SIGNALS, handlers, strict=True):
            if handler is not None:  # else it was set by another language
                signal.signal(number, handler)


_SIGNALLED, _THREADS, _STREAMS = "signal handlers", "torch's number of threads", "sys.stdout and sys.stderr"
_INFERENCE = "whether torch is in inference mode"
_OURS = (_SIGNALLED, _THREADS, _STREAMS, _INFERENCE)
"""What an environment does not get back: signals would be lost to the job meanwhile, and every change of the inference
mode takes another object that has to be kept."""
_SETTINGS = {
    "numpy's handling of floating point errors": _Setting(np.geterr, lambda found: np.seterr(**found)),
    "the working directory": _Setting(_working_directory, _change_directory),
    _SIGNALLED: _Setting(_handlers, _handle),
    _STREAMS: _Setting(lambda: (sys.stdout, sys.stderr), lambda streams: _set_streams(*streams)),
}
_inference_modes: list[Any] = []  # kept: the mode of before comes back when one is dropped
_theirs: dict[str, Any] = {}  # what environments have set, by the setting's name
_told: set[str] = set()


def _set_streams(stdout: Any, stderr: Any) -> None:
    sys.stdout, sys.stderr = stdout, stderr


def _set_inference_mode(torch: Any, on: bool) -> None:
    mode = torch.inference_mode(on)
    mode.__enter__()
    _inference_modes.append(mode)


def _set_default_device(torch: Any, device: Any) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)  # None: as if nobody had ever set one


def _torch_settings() -> tuple[dict[str, _Setting], dict[str, Any]]:
    """Settings of torch, and their values before anybody changes them; nothing where it is not loaded.

    It is not imported here: an environment without torch is made without it.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_num_threads"):  # or it is just being imported
        return {}, {}
    settings = {
        "torch's default number type": _Setting(torch.get_default_dtype, torch.set_default_dtype),
        "torch's default device": _Setting(torch.get_default_device, lambda device: _set_default_device(torch, device)),
        _INFERENCE: _Setting(torch.is_inference_mode_enabled, lambda on: _set_inference_mode(torch, on)),
        "whether torch computes gradients": _Setting(torch.is_grad_enabled, torch.set_grad_enabled),
        "whether torch is deterministic": _Setting(
            torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
        ),
        "the precision of torch's products": _Setting(
            torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
        ),
        _THREADS: _Setting(torch.get_num_threads, torch.set_num_threads),
    }
    first = dict(zip(settings, (torch.float32, torch.device("cpu"), False, True, False, "highest"), strict=False))
    return settings, first


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Around everything that an environment does, its import too.

    Raises RuntimeError where it tried to end the process: an environment is not to decide that, nor silently.
    """
    settings = _SETTINGS | _torch_settings()[0]
    ours = {name: setting.read() for name, setting in settings.items()}
    for name in _theirs.keys() & ours.keys():
        settings[name].write(_theirs[name])
    try:
        yield
    except (SystemExit, GeneratorExit) as error:
        code = f" {error}" if str(error) else ""
        raise RuntimeError(f"it tried to end the process ({type(error).__name__}{code})") from error
    finally:
        of_torch, first = _torch_settings()
        for name, setting in (_SETTINGS | of_torch).items():
            if name in ours or name in first:  # the latter: the environment has loaded torch
                _take_back(name, setting, ours.get(name, first.get(name)))


def _take_back(name: str, setting: _Setting, before: Any) -> None:
    now = setting.read()
    if now == before:
        _theirs.pop(name, None)
        return
    setting.write(before)
    if name not in _OURS:
        _theirs[name] = now
    if name not in _told:
        _told.add(name)
        _LOG.warning("the environment changes %s: training continues with its own", name)
