"""Choosing in a browser, and the plugin behind a path prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.system.dag_run import eventually
from tests.ui.conftest import SHOTS
from tests.ui.stage import PATIENCE, Stage
from tests.ui.window import Window

pytestmark = pytest.mark.timeout(3600)
DAG = "kling_human_choice"


def test_the_editor_watches_and_clicks_and_the_chosen_file_is_published(browser: Window) -> None:
    airflow = browser.airflow
    frame = browser.task("choose", dag_id=DAG)
    buttons = frame.get_by_role("button", name="Choose")
    expect(buttons).to_have_count(4)
    assert [text.split("“")[1][:-1] for text in buttons.all_inner_texts()] == [
        "gentle",
        "literal",
        "turning",
        "morning",
    ]
    expect(frame.locator("video")).to_have_count(4)
    assert "/output/" not in frame.locator(".choice-head").inner_text()
    assert browser.serious() == []
    browser.shot("choice")
    frame.get_by_role("button", name="Play all 4").click()
    browser.page.wait_for_timeout(2500)
    times = browser.frame.evaluate("[...document.querySelectorAll('video')].map((each) => each.currentTime)")
    assert min(times) > 0.3
    assert max(times) - min(times) < 0.4, times
    frame.get_by_role("button", name="turning").click()
    expect(frame.locator(".answered")).to_contain_text("turning was chosen by anna")
    expect(frame.get_by_role("button", name="Choose")).to_have_count(0)
    browser.shot("chosen")

    def published() -> list[Path]:
        return list((airflow.output / "published").glob("*.mp4"))

    (path,) = eventually(published, PATIENCE, "the published video")
    variants = airflow.view("generate", dag_id=DAG)["generations"]
    assert path.stem == variants[2]["generation_id"]
    assert variants[2]["prompt"] == "The mug turns slowly on the table."


def test_it_works_behind_a_path_prefix(chromium: Any, axe: str, tmp_path: Path) -> None:
    stage = Stage(tmp_path / "home", prefix="/team/airflow")
    with stage:
        stage.runs = {"campaign": stage.run("campaign")}

        def saved() -> bool:
            return stage.states("campaign", stage.runs["campaign"]).get(("finished", -1)) == "success"

        eventually(saved, PATIENCE, "the saved video", every=3)
        window = Window(chromium, stage, "anna", axe=axe, shots=SHOTS)
        frame = window.task("finished")
        assert window.video()["readyState"] == 4
        expect(frame.locator(".pictures img")).to_be_visible()
        frame = window.gallery()
        expect(frame.locator(".card").first).to_be_visible()
        window.shot("path-prefix")
        window.close()
