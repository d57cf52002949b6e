"""The AMX machine code where the processor has no AMX: its tile instructions are met, and mistakes in them are seen."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tdmpc_lab.agent.native import build, selftest
from tdmpc_lab.agent.native.library import Library

pytestmark = pytest.mark.xdist_group("native")

MISTAKES = {
    "no configuration": ('asm volatile("tilezero %tmm0");', "no tiles are configured in this thread"),
    "after a release": (
        'configure(16, 64); asm volatile("tilerelease"); asm volatile("tilezero %tmm0");',
        "no tiles are configured in this thread",
    ),
    "one tile twice": (  # tdpbf16ps %tmm0, %tmm0, %tmm1, which the assembler refuses too
        'configure(16, 64); asm volatile(".byte 0xc4, 0xe2, 0x7a, 0x5c, 0xc8");',
        "one tile twice",
    ),
    "sizes": (
        'configure(8, 64); asm volatile("tdpbf16ps %tmm2, %tmm1, %tmm0");',
        "sizes that do not fit",
    ),
    "too many rows": ("configure(17, 64);", "16 rows of 64 bytes at most"),
    "none": ('configure(16, 64); asm volatile("tdpbf16ps %tmm2, %tmm1, %tmm0"); asm volatile("tilerelease");', ""),
}
PROGRAM = """
#include <cstdint>
extern "C" int amx_emulator_start();
struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};
void configure(int rows, int bytes) {
    Config c;
    for (int i = 0; i < 8; ++i) c.rows[i] = uint8_t(rows), c.bytes[i] = uint16_t(bytes);
    asm volatile("ldtilecfg %%0" ::"m"(c));
}
int main() {
    amx_emulator_start();
    %s
}
"""


@pytest.fixture(scope="session")
def emulator(amx_emulator):
    if amx_emulator is None:
        pytest.skip("this processor does the instructions itself")
    return amx_emulator


@pytest.mark.parametrize("config", [selftest.SMALL, selftest.FULL], ids=["small", "reference"])
def test_the_start_up_test_passes_by_tile_instructions(library: Library, emulator, config) -> None:
    """All kinds of instruction were met, and what was configured was given back."""
    before = emulator.done()
    assert selftest.compare(library, "amx", config, sequences=19) < selftest.LARGEST_ERROR
    assert selftest.compare_training(library, "amx", config, rows=19) < selftest.LARGEST_ERROR
    after = emulator.done()
    met = {name: after[name] - before[name] for name in after}
    assert all(met.values()), met
    assert met["configure"] == met["release"]
    assert met["load"] >= met["product"] > met["store"] == met["zero"]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_emulator_refuses_what_a_processor_would(emulator, mistake: str, tmp_path: Path) -> None:
    code, said = MISTAKES[mistake]
    program = tmp_path / "program.cpp"
    program.write_text(PROGRAM % code)
    source = Path(__file__).with_name("amx_emulator.cpp")
    flags = ["-std=c++17", "-O1", "-mavx512f", "-mfma"]
    binary = tmp_path / "program"
    subprocess.run([*build.compiler(), *flags, str(program), str(source), "-o", str(binary)], check=True)
    ended = subprocess.run([binary], capture_output=True, text=True, timeout=60, check=False)
    assert said in ended.stderr
    assert (ended.returncode == 0) == (said == "")
