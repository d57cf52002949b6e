"""MLflow's pages in a real browser without a window: for the tests in tests/browser, and for the pictures in the docs.

    python tools/mlflow_pages.py PROJECT EXPERIMENT [FOLDER]

serves the store of PROJECT and writes FOLDER (default docs/images) /mlflow-view.png, the ready view of the experiment,
mlflow-compare.png, its best run beside its worst, and mlflow-curves.png, these two drawn over each other. Needs
Chromium, and playwright from the [dev] extra.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tdmpc_lab.tracking.view import RUNS, VARIANTS

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",  # it visits nothing but this machine's own server, and containers allow no other way
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Else an assistant covers a quarter of the page, and the kind of page is asked for.
SEEN = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
localStorage.setItem("mlflow.workflowType_v1", '"machine_learning"');
"""
START_S, PAGE_MS = 120, 45_000
LINES = ".js-plotly-plot .scatterlayer path.js-line"


def find_chromium() -> str | None:
    """The browser's program, if it is installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextlib.contextmanager
def served(root: Path, *words: str) -> Iterator[str]:
    """Runs `tdmpc-lab ui` for the project at `root`; the page that it names, once it answers."""
    command = [sys.executable, "-m", "tdmpc_lab", "ui", *words]
    with (root / "ui.log").open("w+") as log:
        server = subprocess.Popen(
            command, cwd=root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield _answering(server, root / "ui.log")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait(10)


def _answering(server: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        found = re.search(r"MLflow for .*: (http://[\d.:]+)(\S*)", log.read_text())
        if found and _healthy(found[1]):
            return found[1] + found[2]
        time.sleep(0.2)
    raise RuntimeError(f"tdmpc-lab ui did not answer:\n{log.read_text()}")


def _healthy(base: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def browser_page(program: str, width: int = 1440, height: int = 800) -> Iterator[Page]:
    """An empty page of a browser of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(PAGE_MS)
            page.add_init_script(SEEN)
            yield page
        finally:
            browser.close()


def open_view(page: Page, url: str) -> list[str]:
    """Open a ready view; the headings of its columns."""
    page.goto("about:blank")  # a change behind the # alone loads nothing
    page.goto(url)
    page.locator(".ag-center-cols-container .ag-row").first.wait_for()
    return [text.strip() for text in page.locator(".ag-header-cell:visible").all_inner_texts() if text.strip()]


def compare(page: Page, run_ids: Sequence[str]) -> None:
    """Select these runs of the table that is open, and open the page that compares them."""
    for run_id in run_ids:
        page.locator(f'.ag-pinned-left-cols-container .ag-row[row-id="{run_id}"] .ag-selection-checkbox input').check()
    page.get_by_test_id("runs-compare-button").click()
    page.get_by_text(f"Comparing {len(run_ids)} Runs").first.wait_for()


def differences_only(page: Page) -> None:
    """On the page that compares: leave only params, metrics and tags that differ."""
    for switch in page.get_by_role("switch").all():
        if switch.get_attribute("aria-checked") != "true":
            switch.click()


def open_curves(page: Page, metric: str) -> list[str]:
    """From the page that compares to the curves of one metric, drawn over each other; their colours."""
    page.get_by_role("link", name=metric, exact=True).click()
    page.locator(LINES).first.wait_for()
    return [str(line.evaluate("line => getComputedStyle(line).stroke")) for line in page.locator(LINES).all()]


def take_pictures(root: Path, experiment: str, folder: Path, program: str) -> None:
    """The three pictures of this module's description."""
    folder.mkdir(parents=True, exist_ok=True)
    with served(root, experiment) as url, browser_page(program, 1280, 560) as page:
        open_view(page, url)
        page.screenshot(path=folder / "mlflow-view.png")
        open_view(page, url.replace(VARIANTS, RUNS))
        rows = page.locator(".ag-pinned-left-cols-container .ag-row").all()
        runs = [str(row.get_attribute("row-id")) for row in sorted(rows, key=_place)]
        compare(page, [runs[0], runs[-1]])
        differences_only(page)
        page.set_viewport_size({"width": 1280, "height": 1000})
        page.get_by_text("Parameters", exact=True).first.scroll_into_view_if_needed()
        page.screenshot(path=folder / "mlflow-compare.png")
        open_curves(page, "eval/return_mean")
        page.set_viewport_size({"width": 1280, "height": 700})
        page.wait_for_timeout(1000)  # the chart is drawn anew for the size
        page.screenshot(path=folder / "mlflow-curves.png")


def _place(row: Locator) -> int:
    return int(row.get_attribute("row-index") or 0)


if __name__ == "__main__":
    browser = find_chromium()
    if browser is None or len(sys.argv) not in (3, 4):
        sys.exit((__doc__ or "") if browser else "Chromium is not installed")
    take_pictures(Path(sys.argv[1]).resolve(), sys.argv[2], Path((sys.argv[3:] or ["docs/images"])[0]), browser)
