"""Compiling the kernels, once for each state of the sources and kind of processor, and the folder they are kept in.

Any number of processes and machines may share the folder: a library is compiled elsewhere and moved to its place in
one step, under a name made of its content. Nobody waits for anybody, so nobody is left waiting for the dead.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch

SOURCES = (
    *("kernels.h", "train.h", "learn.h", "vec.h", "tiles.h", "rows.h"),
    *("rollout.cpp", "train.cpp", "learn.cpp", "dispatch.cpp"),
)
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-pthread")
AVX512 = ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx512bf16", "-mfma")
UNITS: dict[str, tuple[str, ...]] = {
    "dispatch": ("dispatch.cpp", "-O1"),
    "emulation": ("rollout.cpp", "-DTDMPC_EMULATION", "-O1"),
    "avx512": ("rollout.cpp", "-DTDMPC_AVX512", *AVX512),
    "amx": ("rollout.cpp", "-DTDMPC_AMX", *AVX512),
    "train-emulation": ("train.cpp", "-DTDMPC_EMULATION", "-O1"),
    "train-avx512": ("train.cpp", "-DTDMPC_AVX512", *AVX512),
    "train-amx": ("train.cpp", "-DTDMPC_AMX", *AVX512),
    "learn-plain": ("learn.cpp", "-O1"),
    "learn-avx512": ("learn.cpp", *AVX512),
}
"""Object file, its source and what it may use: only code that is chosen at run time goes beyond plain x86-64."""
COMPILERS = ("g++", "c++", "clang++")
COMPILE_S = 300.0
FEATURES = ("avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_bf16", "amx_tile", "amx_bf16")
MANIFEST = "built.json"
CACHE_VARIABLE = "TDMPC_LAB_CACHE"


class UnavailableError(Exception):
    """There are no native kernels here; the message is a phrase that says why. Nothing is wrong with that."""


def processor() -> dict[str, str]:
    """Vendor, model and those features that the kernels ask for, of this machine's first processor.

    Raises UnavailableError where it is no x86-64 processor under Linux.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise UnavailableError(f"they are for x86-64 processors under Linux, not {platform.machine()}")
    entries: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        key, colon, value = line.partition(":")
        if not colon and entries:
            break
        entries[key.strip()] = value.strip()
    flags = set(entries.get("flags", "").split())
    named = {key: entries.get(key, "") for key in ("vendor_id", "cpu family", "model", "stepping")}
    return named | {"features": " ".join(feature for feature in FEATURES if feature in flags)}


def key() -> str:
    """Names one state of sources, flags, torch, C library and kind of processor."""
    here = Path(__file__).parent
    state: list[Any] = [(here / name).read_text(encoding="utf-8") for name in SOURCES]
    state += [FLAGS, UNITS, str(torch.__version__), platform.libc_ver(), processor()]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:20]


def folder() -> Path:
    """Where this key's library and what is known of it are kept; made if it is missing. Raises UnavailableError."""
    return cache_folder(f"kernels-{key()}")


def cache_folder(name: str) -> Path:
    """A folder of this name, made if it is missing, that only this user writes to.

    In `$TDMPC_LAB_CACHE`, the user's cache folder, or where neither can be written, one of this user in the folder for
    temporary files.

    Raises UnavailableError where none of them can be written.
    """
    named = os.environ.get(CACHE_VARIABLE), os.environ.get("XDG_CACHE_HOME")
    candidates = [Path(named[0])] if named[0] else []
    candidates.append((Path(named[1]) if named[1] else Path("~/.cache").expanduser()) / "tdmpc-lab")
    candidates.append(Path(tempfile.gettempdir()) / f"tdmpc-lab-{os.getuid()}")
    for candidate in candidates:
        path = candidate / name
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(path, os.W_OK) and path.stat().st_uid == os.getuid():
            return path
    raise UnavailableError(f"no folder for them can be written: {', '.join(map(str, candidates))}")


def library_path() -> Path:
    """The compiled library, compiled now if it is not there or not whole.

    Raises UnavailableError: no compiler, or it fails.
    """
    place = folder()
    return _kept(place) or _compiled(place)


def _kept(place: Path) -> Path | None:
    """The library of an earlier process, if it is as it was written."""
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        path = place / str(manifest["library"])
        whole = hashlib.sha256(path.read_bytes()).hexdigest() == manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return path if whole else None


def compiler() -> list[str]:
    """The C++ compiler to call: `$CXX`, or the first that is there.

    Raises UnavailableError when there is none.
    """
    named = shlex.split(os.environ.get("CXX", ""))
    for command in [named] if named else [[name] for name in COMPILERS]:
        if shutil.which(command[0]) is not None:
            return command
    raise UnavailableError(f"there is no C++ compiler ({', '.join(named[:1] or COMPILERS)})")


def _compiled(place: Path) -> Path:
    command = compiler()
    try:
        with tempfile.TemporaryDirectory(prefix="tdmpc-lab-") as work:
            library = Path(work) / "kernels.so"
            _compile(command, Path(work), library)
            return _keep(place, library.read_bytes(), shlex.join(command))
    except OSError as error:
        raise UnavailableError(f"they could not be compiled: {error}") from error


def _compile(command: list[str], work: Path, library: Path) -> None:
    here = Path(__file__).parent
    objects = [str(work / f"{unit}.o") for unit in UNITS]
    calls = [
        [*command, *FLAGS, *options, "-c", str(here / source), "-o", output]
        for (source, *options), output in zip(UNITS.values(), objects, strict=True)
    ]
    _run(calls, command[0])
    _run([[*command, "-shared", "-pthread", *objects, "-o", str(library)]], command[0])


def _run(calls: list[list[str]], name: str) -> None:
    """Call the compiler, all calls at once. Raises UnavailableError if one fails."""
    with contextlib.ExitStack() as stack:
        running = []
        for call in calls:
            process = subprocess.Popen(
                call, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            stack.enter_context(process)  # waited for, and its pipe closed
            stack.callback(process.kill)  # before that; does nothing to one that has ended
            running.append(process)
        try:
            said = [process.communicate(timeout=COMPILE_S)[1].decode(errors="replace") for process in running]
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"{name} took more than {COMPILE_S:.0f} s to compile them") from error
    for process, text in zip(running, said, strict=True):
        if process.returncode != 0:
            lines = text.splitlines() or ["no message"]
            told = next((line for line in lines if "error" in line.lower()), lines[0])
            raise UnavailableError(f"{name} could not compile them: {told.strip()[:200]}")


def _keep(place: Path, content: bytes, command: str) -> Path:
    """Move it into the folder; what another process put there in the meantime is as good."""
    digest = hashlib.sha256(content).hexdigest()
    path = place / f"kernels-{digest[:16]}.so"
    write_whole(path, content)
    manifest = {"library": path.name, "sha256": digest, "compiler": command}
    write_whole(place / MANIFEST, json.dumps(manifest).encode())
    return path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that others see whole or not at all. Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
