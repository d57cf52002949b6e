"""Which kernels an agent plans with: what is missing costs speed and a line, never a job."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from agent_fixtures import TINY, TINY_PLANNER, perturbed

from tdmpc_lab.agent import Agent, AgentConfig
from tdmpc_lab.agent.native import build, choose, selftest
from tdmpc_lab.agent.native.library import Library
from tdmpc_lab.agent.native.rollouts import NativeRollouts
from tdmpc_lab.agent.packed_rollouts import PackedRollouts

pytestmark = pytest.mark.xdist_group("native")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the compiled library."""
    cache = tmp_path_factory.mktemp("kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(build.CACHE_VARIABLE, str(cache))
        try:
            build.processor()
            build.compiler()
        except build.UnavailableError as reason:
            pytest.skip(f"no native kernels can be made here: {reason}")
        build.library_path()
    return cache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and nothing decided yet in this process."""
    monkeypatch.setenv(build.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(choose.VARIABLE)
    choose._found.cache_clear()
    yield tmp_path / "cache"
    choose._found.cache_clear()


@pytest.fixture
def any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor with all that is asked for: it is not this machine that decides."""
    monkeypatch.setattr(choose, "processor", lambda: {"features": " ".join(build.FEATURES)})


def chosen(**settings: str) -> str:
    return str(choose.choose(AgentConfig(**settings), CPU))


def test_without_a_compiler_torch_plans(cache, any_processor, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    assert chosen() == "torch (no native kernels: there is no C++ compiler (g++, c++, clang++))"
    agent = Agent(5, 2, agent=TINY, planner=TINY_PLANNER, device="cpu")
    assert isinstance(agent.rollouts, PackedRollouts)
    action = agent.act(np.zeros((1, 5), np.float32), agent.plan_state(1, seed=0), explore=True)
    assert np.isfinite(action).all()


def test_also_where_native_kernels_are_asked_for(cache, any_processor, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -x")
    assert chosen(kernels="native") == "torch (no native kernels: there is no C++ compiler (no-such-compiler))"


def test_a_compiler_that_fails_is_named_with_its_error(cache, any_processor, tmp_path, monkeypatch):
    script = tmp_path / "g++"
    script.write_text("#!/bin/sh\necho \"g++: error: unrecognized option '-mavx512bf16'\" >&2\nexit 1\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(script))
    assert "could not compile them: g++: error: unrecognized option '-mavx512bf16'" in chosen()
    assert list(cache.rglob("*.so")) == []


def test_a_processor_without_such_products_compiles_nothing(cache, monkeypatch):
    monkeypatch.setattr(choose, "processor", lambda: {"features": "avx512f avx512bw"})
    assert chosen() == "torch (no native kernels: this processor has no products of bfloat16 (AMX or AVX-512))"
    assert not cache.exists()


def test_another_kind_of_machine_compiles_nothing(cache, monkeypatch):
    monkeypatch.setattr(build.platform, "machine", lambda: "aarch64")
    assert chosen() == ("torch (no native kernels: they are for x86-64 processors under Linux, not aarch64)")


def test_what_is_set_counts(cache, monkeypatch):
    assert chosen(kernels="torch") == "torch (agent.kernels: torch)"
    monkeypatch.setenv(choose.VARIABLE, "torch")
    assert chosen() == "torch (TDMPC_LAB_KERNELS=torch)"
    assert chosen(kernels="native", precision="float32") == "torch (agent.precision: float32)"
    assert chosen(kernels="native", hidden_layers=16) == ("torch (native kernels are for less than 16 hidden layers)")
    assert not cache.exists()


def test_every_processor_and_torch_has_a_library_of_its_own(monkeypatch):
    key = build.key()
    assert build.key() == key
    with monkeypatch.context() as patch:
        patch.setattr(build, "processor", lambda: {"features": "amx_tile"})
        assert build.key() != key
    with monkeypatch.context() as patch:
        patch.setattr(build.torch, "__version__", "9.9")
        assert build.key() != key


def with_library(filled: Path, cache: Path) -> Path:
    """Fill the cache from the compiled one; returns the library."""
    for path in filled.rglob("*"):
        if path.is_file():
            target = cache / path.relative_to(filled)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return next(cache.rglob("*.so"))


def test_a_library_in_the_cache_needs_no_compiler(filled, cache, monkeypatch):
    path = with_library(filled, cache)
    monkeypatch.setenv("PATH", "/nowhere")
    assert build.library_path() == path


@pytest.mark.parametrize("damage", ["torn library", "torn manifest", "no library", "no manifest", "a foreign manifest"])
def test_a_damaged_cache_is_filled_again(filled, cache, damage, monkeypatch):
    path = with_library(filled, cache)
    content, manifest = path.read_bytes(), path.with_name(build.MANIFEST)
    if damage == "torn library":
        path.write_bytes(content[:1000])
    elif damage == "torn manifest":
        manifest.write_text(manifest.read_text()[:20])
    elif damage == "no library":
        path.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text("[1, 2]")
    monkeypatch.setattr(build, "_compile", lambda command, work, library: library.write_bytes(content))
    assert build.library_path().read_bytes() == content
    assert json.loads(manifest.read_text())["library"] == path.name
    assert not list(cache.rglob(".writing-*"))


def test_a_library_that_is_none_costs_a_line(cache, any_processor, monkeypatch):
    monkeypatch.setattr(build, "_compile", lambda command, work, library: library.write_text("no library"))
    assert "the compiled library can't be loaded" in chosen()


def test_two_processes_may_compile_at_once(filled, cache):
    content = next(filled.rglob("*.so"))
    code = f"""
        import sys, time
        from pathlib import Path
        from tdmpc_lab.agent.native import build
        def slow(command, work, library):
            time.sleep(0.5)
            library.write_bytes(Path({str(content)!r}).read_bytes())
        build._compile = slow
        print(build.library_path())
        """
    script = "\n".join(
        line.strip() if not line.startswith(" " * 12) else "    " + line.strip() for line in code.split("\n")
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(2)
    ]
    paths = {process.communicate(timeout=120)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == content.read_bytes()


def test_a_folder_that_cannot_be_written_is_passed_over(cache, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(build.CACHE_VARIABLE, str(tmp_path / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert build.folder().is_relative_to(tmp_path / "user" / "tdmpc-lab")


def test_a_test_that_crashes_ends_no_job(filled, cache, any_processor, tmp_path, monkeypatch):
    """The child process dies as from an instruction that is not there; asked once, then known."""
    with_library(filled, cache)
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho x >> {tmp_path}/asked\nkill -ILL $$\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(choose, "Library", with_backends("avx512", "emulation"))
    expected = "torch (no native kernels: AVX-512 with bfloat16: its process was ended by SIGILL)"
    for _ in range(2):
        choose._found.cache_clear()
        assert chosen() == expected
    assert (tmp_path / "asked").read_text() == "x\n"


def with_backends(*backends: str, amx_not_given: bool = False) -> type[Library]:
    """The library, as if on a processor with these ways of multiplying."""

    class Other(Library):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.backends = backends
            self.amx_not_given = amx_not_given

    return Other


def test_wrong_values_leave_it_to_the_next_way(filled, cache, any_processor, monkeypatch):
    with_library(filled, cache)
    said = {"amx": "its values are off by 3.2 of their standard deviation", "avx512": "good"}
    monkeypatch.setattr(selftest, "ask", lambda module, path, backend: said[backend])
    monkeypatch.setattr(choose, "Library", with_backends("amx", "avx512", "emulation"))
    kernels = choose.choose(AgentConfig(), CPU)
    assert kernels.backend == "avx512"
    assert str(kernels) == (
        "native kernels (AVX-512 with bfloat16; AMX tiles: its values are off by 3.2 of their standard deviation)"
    )


def test_a_system_that_keeps_amx_for_itself_is_named(filled, cache, any_processor, monkeypatch):
    with_library(filled, cache)
    monkeypatch.setattr(selftest, "ask", lambda module, path, backend: "good")
    monkeypatch.setattr(choose, "Library", with_backends("avx512", amx_not_given=True))
    assert chosen() == (
        "native kernels (AVX-512 with bfloat16; AMX tiles: the system does not let this process use them)"
    )


def test_the_test_tells_a_wrong_kernel_from_a_right_one(filled, cache, monkeypatch):
    library = Library(with_library(filled, cache))
    config = selftest.SMALL
    assert selftest.compare(library, "emulation", config, sequences=19) < 0.5 * selftest.LARGEST_ERROR
    monkeypatch.setattr(NativeRollouts, "terminal", lambda self, last, noise, heads: 1.3 * noise[..., 0])
    assert selftest.compare(library, "emulation", config, sequences=19) > selftest.LARGEST_ERROR


def test_an_agent_plans_with_native_kernels_and_the_same_ones_again(filled, cache, monkeypatch):
    """The whole way with a child process, on emulated tiles; a loaded agent continues to the same bits."""
    with_library(filled, cache)
    monkeypatch.setenv(choose.VARIABLE, "emulation")
    agent, again = (Agent(5, 2, agent=TINY, planner=TINY_PLANNER, device="cpu", seed=seed) for seed in (1, 2))
    perturbed(agent.model)
    assert str(agent.kernels) == "native kernels (emulated tiles, for tests)"
    assert isinstance(agent.rollouts, NativeRollouts)
    observations = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    again.load_state_dict(agent.state_dict())
    actions = [a.act(observations, a.plan_state(3, seed=7), explore=True) for a in (agent, again)]
    assert np.array_equal(*actions)
    plain = Agent(5, 2, agent=TINY, planner=TINY_PLANNER, device="cpu")
    plain.kernels = choose.Kernels("for comparison")
    plain.load_state_dict(agent.state_dict())
    assert np.abs(plain.act(observations, plain.plan_state(3, seed=7), explore=True) - actions[0]).mean() < 0.1
