"""A whole Airflow with the emulator, and a headless Chromium that looks at it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.version import Version

ROOT: Final = Path(__file__).resolve().parents[2]
CHROMIUM: Final = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MISSING: Final = [
    what
    for what, there in (
        ("Airflow 3.1 or newer", Version(version("apache-airflow")) >= Version("3.1")),
        ("playwright (make test-ui installs it)", find_spec("playwright") is not None),
        ("Chromium", CHROMIUM is not None),
    )
    if not there
]
if MISSING:
    collect_ignore_glob = ["test_*.py"]
    if os.environ.get("KLING_UI_TESTS") == "needed":
        raise pytest.UsageError(f"The tests of the UI need {' and '.join(MISSING)}.")

SHOTS: Final = ROOT / "build" / "ui-screenshots" / ".".join(version("apache-airflow").split(".")[:2])


@pytest.fixture(scope="session")
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture(scope="session")
def airflow(stack: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Airflow with one run of each DAG, and a gallery of 300 generations."""
    from tests.ui.stage import Stage

    return stack.enter_context(Stage(tmp_path_factory.mktemp("airflow") / "home").begun())


@pytest.fixture(scope="session")
def chromium(stack: ExitStack) -> Any:
    from playwright.sync_api import sync_playwright

    playwright = stack.enter_context(sync_playwright())
    arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
    stack.callback(browser.close)
    return browser


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, from npm."""
    script = ROOT / "ui" / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        subprocess.run(
            ["npm", "ci", "--silent", "--ignore-scripts"], cwd=ROOT / "ui", check=True, stdout=sys.stderr
        )
    return script.read_text()


@pytest.fixture
def browser(chromium: Any, airflow: Any, axe: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A browser window of ``anna``; fails the test if the console has an error."""
    from tests.ui.window import Window

    window = Window(chromium, airflow, "anna", axe=axe, shots=SHOTS)
    yield window
    window.close()
