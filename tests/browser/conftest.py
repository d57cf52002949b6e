"""Tests that open MLflow's pages in a real browser. Without Chromium they are skipped, in one line; with
TDMPC_LAB_REQUIRE_BROWSER=1 (as in `.ci/run`) they fail."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

from mlflow_pages import browser_page, find_chromium  # noqa: E402

REQUIRED = os.environ.get("TDMPC_LAB_REQUIRE_BROWSER") == "1"  # before the environment is cleaned for every test


@pytest.fixture
def page() -> Iterator[Any]:
    """An empty page of a browser."""
    program = find_chromium()
    missing = "Chromium" if program is None else "playwright" if not importlib.util.find_spec("playwright") else None
    if program is None or missing is not None:
        reason = f"no browser for MLflow's pages: {missing} is not installed"
        if REQUIRED:
            pytest.fail(f"{reason} (TDMPC_LAB_REQUIRE_BROWSER=1)", pytrace=False)
        pytest.skip(reason)
    with browser_page(program) as page:
        yield page
