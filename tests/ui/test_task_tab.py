"""The tab of a task instance in a browser."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.ui.window import Window

pytestmark = pytest.mark.timeout(3600)


def test_a_finished_task_plays_its_video(browser: Window) -> None:
    frame = browser.task("finished")
    expect(frame.locator(".badge").first).to_have_text("Saved")
    seen = browser.video()
    assert seen["readyState"] == 4
    assert seen["duration"] == pytest.approx(5, abs=0.1)
    assert browser.brightness() > 40  # the still is not black
    assert browser.sought(3.2) == pytest.approx(3.2, abs=0.05)
    expect(frame.get_by_text("Steam rises from the mug.").first).to_be_visible()
    picture = frame.locator(".pictures img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 0
    expect(frame.locator(".facts").first).to_contain_text(re.compile(r"\$0\.\d\d"))
    assert browser.serious() == []
    browser.shot("finished")


def test_the_video_can_be_downloaded_and_the_ids_be_copied(browser: Window) -> None:
    frame = browser.task("finished")
    with browser.page.expect_download() as waiting:
        frame.get_by_role("link", name="Download").click()
    assert waiting.value.suggested_filename.endswith(".mp4")
    assert waiting.value.path().read_bytes()[4:8] == b"ftyp"
    browser.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=browser.airflow.origin)
    frame.get_by_role("button", name="Copy the generation id").click()
    told = browser.airflow.view("finished")["generations"][0]["generation_id"]
    assert browser.page.evaluate("navigator.clipboard.readText()") == told


def test_a_waiting_task_shows_how_far_it_is_and_refreshes_itself(browser: Window) -> None:
    frame = browser.task("waiting")
    line = frame.get_by_role("progressbar")
    expect(line).to_be_visible()
    expect(frame.locator(".waiting")).to_contain_text(re.compile(r"Generating"))
    first = frame.locator(".waiting .faint").first.inner_text()
    expect(frame.locator(".waiting .faint").first).not_to_have_text(first)
    with browser.page.expect_response(
        lambda answer: "/tasks/waiting/" in answer.url, timeout=15_000
    ) as again:
        pass
    assert again.value.status == 200
    assert browser.serious() == []
    browser.shot("waiting")


def test_a_finished_view_does_not_refresh_any_more(browser: Window) -> None:
    browser.task("finished")
    browser.page.wait_for_timeout(1000)
    asked: list[str] = []
    browser.page.on("request", lambda request: asked.append(request.url))
    browser.page.wait_for_timeout(7000)
    assert [url for url in asked if "/kling/api/dags/" in url and "/video" not in url] == []


def test_a_failed_task_says_why_and_what_to_do(browser: Window) -> None:
    frame = browser.task("failed")
    expect(frame.locator(".badge").first).to_have_text("Failed")
    failure = frame.locator(".failure")
    expect(failure).to_contain_text("does not charge")
    expect(frame.locator("video")).to_have_count(0)
    assert browser.serious() == []
    browser.shot("failed")


@pytest.mark.parametrize(("map_index", "prompt"), [(0, "Morning light moves"), (1, "Rain on the window")])
def test_each_mapped_instance_has_its_own(browser: Window, map_index: int, prompt: str) -> None:
    frame = browser.task("mapped", map_index=map_index)
    expect(frame.locator(".prompt")).to_contain_text(prompt)
    assert browser.video()["readyState"] == 4
    browser.shot(f"mapped-{map_index}")


def test_variants_are_all_there_with_their_states(browser: Window) -> None:
    frame = browser.task("variants")
    expect(frame.locator("article.generation")).to_have_count(3)
    assert frame.locator("article .badge").all_inner_texts() == ["Saved", "Saved", "Failed"]
    expect(frame.locator(".failure")).to_have_count(1)
    frame.get_by_role("button", name="Compare side by side").click()
    expect(frame.get_by_role("dialog").locator("video")).to_have_count(2)
    assert browser.serious() == []
    browser.shot("variants-compared")
    browser.page.keyboard.press("Escape")
    expect(frame.get_by_role("dialog")).to_have_count(0)
    browser.shot("variants")


def test_a_batch_shows_all_of_its_rows_with_their_states(browser: Window) -> None:
    frame = browser.task("batch")
    expect(frame.get_by_role("heading", name="8 rows")).to_be_visible()
    legend = frame.locator(".stack-legend li")
    expect(legend).to_have_text(["6 saved", "1 failed", "1 invalid"])
    cards = frame.locator(".card")
    expect(cards).to_have_count(8)
    assert cards.locator(".badge").all_inner_texts() == ["Saved"] * 6 + ["Failed", "Invalid"]
    browser.frame.evaluate(
        "async () => { for (const v of document.querySelectorAll('.card video')) while (v.readyState < 2) await new Promise((go) => setTimeout(go, 100)) }"
    )
    assert browser.serious() == []
    browser.shot("batch")
    frame.get_by_label("Status").select_option("failed")
    expect(cards).to_have_count(1)
    cards.locator(".card-picture").click()
    expect(frame.get_by_role("dialog").locator(".failure")).to_contain_text("does not charge")
    browser.shot("batch-failed-row")
    browser.page.keyboard.press("Escape")
    frame.get_by_label("Status").select_option("")
    frame.get_by_label("Key").fill("MUG-00")
    expect(cards).to_have_count(6)
    cards.first.locator(".card-picture").click()
    expect(frame.get_by_role("dialog").locator("video")).to_be_visible()
    assert browser.video()["readyState"] >= 2
    expect(frame.get_by_role("dialog").get_by_text("Generation id")).to_be_visible()
    browser.page.keyboard.press("Escape")
    for number in range(2):
        frame.locator(".card input[type=checkbox]").nth(number).check(force=True)
    frame.get_by_role("button", name="Compare side by side").click()
    expect(frame.get_by_role("dialog").locator("video")).to_have_count(2)


def test_a_running_batch_shows_how_far_it_is_and_what_is_done(browser: Window) -> None:
    frame = browser.task("batch_running")
    bar = frame.get_by_role("progressbar", name="Rows that are done")
    expect(bar).to_have_attribute("aria-valuenow", "3", timeout=120_000)
    expect(frame.locator(".stack-legend")).to_contain_text("generating")
    expect(frame.locator(".card", has=frame.locator(".status-saved"))).to_have_count(3)
    expect(frame.locator(".card", has=frame.locator(".status-generating"))).not_to_have_count(0)
    expect(frame.get_by_text("those that are not submitted yet are not listed")).to_be_visible()
    assert browser.serious() == []
    browser.shot("batch-running")


def test_a_sensor_and_a_download_show_the_generation_that_they_know_of(browser: Window) -> None:
    for task_id in ("generate", "wait", "download"):
        frame = browser.task(task_id)
        expect(frame.locator(".prompt")).to_have_text("Steam, seen from above.")
        assert browser.video()["readyState"] == 4
    browser.shot("download")


def test_where_nothing_was_saved_the_vendor_s_video_is_played(browser: Window) -> None:
    frame = browser.task("vendor_only")
    expect(frame.locator(".badge").first).to_have_text("Completed")
    seen = browser.video()
    assert seen["readyState"] == 4
    assert seen["duration"] == pytest.approx(5, abs=0.1)
    assert browser.sought(4) == pytest.approx(4, abs=0.05)
    assert "ksSecret" not in browser.frame.content()
    browser.shot("vendor-only")


def test_a_foreign_task_has_one_quiet_line(browser: Window) -> None:
    frame = browser.task("foreign")
    expect(frame.locator("body")).to_have_text("Kling: foreignThis task has no Kling generation.")
    browser.shot("foreign")


def test_a_retried_task_shows_every_attempt(browser: Window) -> None:
    airflow: Any = browser.airflow
    frame = browser.task("retried")
    rows = frame.locator(".attempts tbody tr")
    expect(rows).to_have_count(2)
    assert [text.split("\t")[1].strip() for text in rows.all_inner_texts()] == ["success", "failed"]
    assert browser.video()["readyState"] == 4
    assert len(airflow.view("retried")["generations"]) == 1
    browser.shot("retried")


def test_it_is_dark_where_airflow_is(chromium: Any, airflow: Any, axe: str, browser: Window) -> None:
    dark = Window(chromium, airflow, "anna", axe=axe, shots=browser._shots, theme="dark")
    for task_id in ("finished", "failed", "waiting", "variants", "batch", "batch_running", "retried"):
        dark.task(task_id)
        assert dark.frame.evaluate("document.documentElement.dataset.theme") == "dark"
        assert dark.serious() == []
        dark.shot(task_id)
    dark.close()


def test_the_keyboard_reaches_everything(browser: Window) -> None:
    frame = browser.task("finished")
    frame.locator("video").focus()
    reached = set()
    for _ in range(14):
        browser.page.keyboard.press("Tab")
        reached.add(
            browser.frame.evaluate(
                "document.activeElement.textContent + (document.activeElement.ariaLabel ?? '')"
            )
        )
    for name in (
        "Download",
        "Copy the path",
        "Copy the generation id",
        "Copy the client request id",
        "attempt",
    ):
        assert any(name in each for each in reached), (name, reached)
