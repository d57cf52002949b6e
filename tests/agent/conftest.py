"""The compiled kernels, for the tests of planning and of training with them."""

from __future__ import annotations

from collections.abc import Iterator

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


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, library: Library) -> Backend:
    if request.param not in library.backends:
        pytest.skip(f"this processor has no {request.param}")
    return request.param
