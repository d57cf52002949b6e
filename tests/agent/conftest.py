"""The compiled kernels, for the tests of planning and of training with them."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tdmpc_lab.agent.native import build
from tdmpc_lab.agent.native.library import BACKENDS, Backend, Library


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(build.CACHE_VARIABLE, str(tmp_path_factory.mktemp("kernels")))
        try:
            build.processor()
            build.compiler()
        except build.UnavailableError as reason:
            pytest.skip(f"no native kernels can be made here: {reason}")
        yield Library(build.library_path())


class AmxEmulator:
    """Does the tile instructions of this process from now on, where its processor has none."""

    NAMES = ("configure", "release", "zero", "load", "store", "product")

    def __init__(self, folder: Path) -> None:
        path = folder / "amx_emulator.so"
        source = Path(__file__).with_name("amx_emulator.cpp")
        flags = ["-std=c++17", "-O2", "-mavx512f", "-mfma", "-fPIC", "-shared", "-Wall", "-Werror"]
        subprocess.run([*build.compiler(), *flags, str(source), "-o", str(path)], check=True)
        self._library = ctypes.CDLL(str(path))
        assert self._library.amx_emulator_start() == 0

    def done(self) -> dict[str, int]:
        """How many instructions of each kind were met so far."""
        counts = (ctypes.c_int64 * len(self.NAMES))()
        self._library.amx_emulator_done(counts)
        return dict(zip(self.NAMES, counts, strict=True))


@pytest.fixture(scope="session")
def amx_emulator(library: Library, tmp_path_factory: pytest.TempPathFactory) -> AmxEmulator | None:
    """None where the processor does the instructions itself."""
    if "amx" in library.backends:
        return None
    if "avx512" not in library.backends or library.amx_not_given:
        pytest.skip("the code around the tile instructions needs AVX-512 with bfloat16")
    return AmxEmulator(tmp_path_factory.mktemp("emulator"))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, library: Library) -> Backend:
    if request.param == "amx":
        emulator = request.getfixturevalue("amx_emulator")
        if emulator is not None and request.node.get_closest_marker("many_products"):
            pytest.skip("takes minutes with emulated tile instructions")
    elif request.param not in library.backends:
        pytest.skip(f"this processor has no {request.param}")
    return request.param
