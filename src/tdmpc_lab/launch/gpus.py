"""What is known of GPU types by the names that clusters give them."""

from __future__ import annotations

# GiB of memory. Where a card comes in two sizes, the smaller one.
_GIB = {
    "1080": 8, "1080ti": 11, "2070": 8, "2080": 8, "2080ti": 11, "3060": 12, "3070": 8, "3080": 10, "3090": 24,
    "4060ti": 8, "4070": 12, "4080": 16, "4090": 24, "5080": 16, "5090": 32,
    "titanx": 12, "titanxp": 12, "titanv": 12, "titanrtx": 24,
    "a2": 16, "a10": 24, "a16": 16, "a30": 24, "a40": 48, "a100": 40, "a2000": 6, "a4000": 16, "a4500": 20, "a5000": 24,
    "a5500": 24, "a6000": 48, "6000ada": 48, "rtx6000": 24, "rtx8000": 48, "l4": 24, "l40": 48, "l40s": 48,
    "h100": 80, "h200": 141, "b200": 180, "gh200": 96, "k80": 12, "m40": 12, "p40": 24, "p100": 12, "t4": 16,
    "v100": 16,
}  # fmt: skip
# What stands around the name of a card: `nvidia_geforce_rtx_2080_ti`, `rtx_a4000`, `a100-80gb`.
_BRANDS = ("nvidia", "geforce", "quadro", "tesla", "rtx", "gtx")


def gpu_memory_gib(name: str) -> int | None:
    """Memory of a GPU type in GiB, None where the name is not known. A size in the name counts: `a100_80gb`."""
    words = [word for word in name.lower().replace("-", "_").split("_") if word]
    for word in words:
        if word.endswith("gb") and word[:-2].isdecimal():
            return int(word[:-2])
    joined = "".join(words)
    while True:
        if joined in _GIB:
            return _GIB[joined]
        brand = next((brand for brand in _BRANDS if joined.startswith(brand) and joined != brand), None)
        if brand is None:
            return None
        joined = joined.removeprefix(brand)
