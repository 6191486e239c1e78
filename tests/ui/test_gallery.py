"""The gallery in a browser: 300 generations, filters, sums, comparison, and what another user sees."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.ui.conftest import SHOTS
from tests.ui.stage import GALLERY, GENERATIONS
from tests.ui.window import Window

pytestmark = pytest.mark.timeout(3600)


def total(frame: Any) -> Any:
    return frame.locator(".totals dd").first


def test_it_is_in_the_navigation_and_shows_stills(browser: Window) -> None:
    browser.page.goto(browser.airflow.url + "/")
    browser.page.get_by_role("button", name="Browse").click()
    browser.page.get_by_role("menuitem", name="Kling gallery").click()
    browser.page.wait_for_selector("iframe")
    frame = browser.page.frame_locator("iframe")
    expect(frame.locator(".card").first).to_be_visible()
    expect(frame.locator(".card")).not_to_have_count(0)
    browser.page.wait_for_timeout(3000)
    shown = browser.frame.evaluate(
        "[...document.querySelectorAll('.card video')].filter((video) => video.readyState >= 2).length"
    )
    assert shown >= 8
    assert browser.serious() == []
    browser.shot("gallery")


def test_its_sums_are_right(browser: Window) -> None:
    frame = browser.gallery()
    frame.get_by_label("DAG").select_option(GALLERY)
    expect(total(frame)).to_have_text(str(GENERATIONS))
    failed = sum(number % 12 == 5 for number in range(GENERATIONS))
    usd = sum(0.25 * (1 + number % 3) for number in range(GENERATIONS) if number % 12 != 5)
    expect(frame.locator(".totals dd").nth(2)).to_have_text(f"${usd:.2f}")
    expect(frame.locator(".plots figure").nth(2).locator("figcaption .faint")).to_have_text(str(failed))
    bars = frame.locator(".bars .mono").all_inner_texts()
    assert sum(map(int, bars)) == failed
    legend = frame.locator(".legend .faint").all_inner_texts()
    assert sum(float(text.strip("$").replace(",", "")) for text in legend) == pytest.approx(usd, abs=0.02)
    frame.get_by_role("button", name="Count", exact=True).click()
    counts = frame.locator(".legend .faint").all_inner_texts()
    assert sum(int(text.replace(",", "")) for text in counts) == GENERATIONS
    frame.locator(".plots").scroll_into_view_if_needed()
    browser.shot("plots")


def test_filters_narrow_it_down(browser: Window) -> None:
    frame = browser.gallery()
    frame.get_by_label("DAG").select_option(GALLERY)
    frame.get_by_label("Status").select_option("failed")
    expect(total(frame)).to_have_text("25")
    expect(frame.locator(".card .badge").first).to_have_text("Failed")
    browser.shot("gallery-failed")
    frame.get_by_label("Status").select_option("")
    frame.get_by_label("Prompt").fill("TEAPOT glows")
    matching = [number for number in range(GENERATIONS) if number % 5 == 4 and number % 4 == 3]
    expect(total(frame)).to_have_text(str(len(matching)))
    assert all(
        "teapot glows" in text.lower() for text in frame.locator(".card .prompt-line").all_inner_texts()
    )
    frame.get_by_label("Prompt").fill("no such words")
    expect(frame.get_by_text("No generation matches these filters")).to_be_visible()
    browser.shot("gallery-empty")
    frame.get_by_role("button", name="Reset the filters").click()
    frame.get_by_label("DAG").select_option(GALLERY)
    frame.get_by_label("Sort by").select_option("dearest")
    expect(frame.locator(".card-line span").filter(has_text="$").first).to_have_text("$0.75")


def test_it_goes_page_by_page(browser: Window) -> None:
    frame = browser.gallery()
    frame.get_by_label("DAG").select_option(GALLERY)
    expect(frame.locator(".pager")).to_contain_text("Page 1 of 13")
    expect(frame.locator(".card .clip").filter(has_not_text=GALLERY)).to_have_count(0)
    expect(frame.locator(".card")).to_have_count(24)
    first = frame.locator(".card .prompt-line").all_inner_texts()
    frame.get_by_role("button", name="Next").click()
    expect(frame.locator(".pager")).to_contain_text("Page 2 of 13")
    expect(frame.locator(".card .prompt-line").first).not_to_have_text(first[0])
    expect(frame.locator("[aria-busy=true]")).to_have_count(0)
    expect(frame.locator(".card")).to_have_count(24)


def test_two_are_compared_in_step(browser: Window) -> None:
    frame = browser.gallery()
    frame.get_by_label("Status").select_option("completed")
    expect(frame.locator(".card .badge").first).to_have_text("Saved")
    for number in range(3):
        frame.locator(".card input[type=checkbox]").nth(number).check(force=True)
    frame.get_by_role("button", name="Compare side by side").click()
    dialog = frame.get_by_role("dialog")
    expect(dialog.locator("video")).to_have_count(3)
    browser.frame.evaluate(
        "async () => { for (const v of document.querySelectorAll('dialog video')) while (v.readyState < 4) await new Promise((go) => setTimeout(go, 100)) }"
    )
    dialog.get_by_role("button", name=re.compile("Play all")).click()
    browser.page.wait_for_timeout(2500)
    times = browser.frame.evaluate(
        "[...document.querySelectorAll('dialog video')].map((each) => each.currentTime)"
    )
    assert min(times) > 0.5
    assert max(times) - min(times) < 0.4, times
    assert browser.serious() == []
    browser.shot("compare")


def test_pointing_at_a_still_plays_it_and_a_click_shows_everything(browser: Window) -> None:
    frame = browser.gallery()
    playable = frame.locator(".card", has=frame.locator(".card-select"))
    card = playable.filter(has=frame.locator(".status-saved")).first
    card.hover()
    browser.page.wait_for_timeout(1500)
    assert card.locator("video").evaluate("video => !video.paused")
    card.locator(".card-picture").click()
    dialog = frame.get_by_role("dialog")
    expect(dialog.locator("video[controls]")).to_be_visible()
    expect(dialog.get_by_text("Generation id")).to_be_visible()
    browser.shot("gallery-detail")
    dialog.get_by_role("link", name="Open the task").click()
    browser.page.wait_for_url(re.compile(r"/tasks/.*/plugin/kling$"))


def test_a_dag_and_a_run_have_galleries_of_their_own(browser: Window) -> None:
    frame = browser.open("/dags/campaign/plugin/kling-dag")
    expect(frame.get_by_role("heading", level=1)).to_have_text("Generations of this DAG")
    expect(total(frame)).not_to_have_text("0")
    names = {text.split(" · ")[0] for text in frame.locator(".card .clip").all_inner_texts()}
    assert "product_video" not in names
    frame = browser.open(f"/dags/campaign/runs/{browser.airflow.runs['campaign']}/plugin/kling-run")
    expect(frame.get_by_role("heading", level=1)).to_have_text("Generations of this run")
    expect(total(frame)).not_to_have_text("0")
    assert browser.serious() == []
    browser.shot("gallery-of-a-run")


def test_it_is_dark_where_airflow_is(chromium: Any, airflow: Any, axe: str, browser: Window) -> None:
    dark = Window(chromium, airflow, "anna", axe=axe, shots=browser._shots, theme="dark")
    frame = dark.gallery()
    expect(frame.locator(".card").first).to_be_visible()
    assert dark.serious() == []
    dark.shot("gallery")
    frame.locator(".plots").scroll_into_view_if_needed()
    dark.shot("plots")
    dark.close()


def test_the_other_user_sees_nothing_of_the_hidden_dag(chromium: Any, airflow: Any, axe: str) -> None:
    with airflow.with_two_users() as guarded:
        ben = Window(chromium, guarded, "ben", axe=axe, shots=SHOTS)
        frame = ben.gallery()
        expect(total(frame)).not_to_have_text("0")
        expect(frame.get_by_label("DAG").locator("option")).not_to_have_count(1)
        dags = frame.get_by_label("DAG").locator("option").all_inner_texts()
        assert GALLERY in dags
        assert "campaign" not in dags
        frame = ben.open(f"/dags/campaign/runs/{airflow.runs['campaign']}/tasks/finished/plugin/kling")
        expect(frame.get_by_text("You may not see this")).to_be_visible()
        ben.shot("not-allowed")
        ben.console.clear()  # the browser logs each refusal
        ben.close()
        mine, all_ = (guarded.get("api/summary", user=user).json() for user in ("ben", "anna"))
        assert mine["count"] < all_["count"]
        assert "campaign" not in mine["facets"]["dags"]
        seen = guarded.view("finished")
        for address in (seen["generations"][0]["video_url"], seen["generations"][0]["pictures"][0]["url"]):
            assert guarded.get(address, user="anna").status_code == 200
            assert guarded.get(address, user="ben").status_code == 403
            assert guarded.get(address, user=None).status_code == 401


def test_no_log_and_no_page_holds_a_signed_url_or_the_key(airflow: Any) -> None:
    log = airflow.log.read_text(errors="replace")
    assert "ksSecret=" not in log
    assert airflow.emulator.api_key not in log
    for path in ("api/generations", "api/summary"):
        assert "ksSecret" not in airflow.get(path, user="anna").text


def links_of(airflow: Any, task_id: str, map_index: int = -1) -> dict[str, str | None]:
    instance = f"dags/campaign/dagRuns/{airflow.runs['campaign']}/taskInstances/{task_id}"
    mapped = f"?map_index={map_index}" if map_index >= 0 else ""
    return dict(airflow.call("GET", f"{instance}/links{mapped}")["extra_links"])


@pytest.mark.parametrize(
    ("task_id", "map_index", "saved"),
    [
        ("finished", -1, "/tasks/finished/-1/attempts/1/generations/0/video"),
        ("retried", -1, "/tasks/retried/-1/attempts/2/generations/0/video"),
        ("download", -1, "/tasks/download/-1/attempts/1/generations/0/video"),
        ("mapped", 0, "/tasks/mapped/0/attempts/1/generations/0/video"),
        ("mapped", 1, "/tasks/mapped/1/attempts/1/generations/0/video"),
        ("variants", -1, "/tasks/variants/plugin/kling"),
        ("failed", -1, None),
        ("waiting", -1, None),
        ("vendor_only", -1, None),
        ("wait", -1, None),
        ("batch", -1, None),
    ],
)
def test_links_lead_to_the_video_the_gallery_and_the_file(
    airflow: Any, task_id: str, map_index: int, saved: str | None
) -> None:
    links = links_of(airflow, task_id, map_index)
    mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
    assert (links["Video"] or "").endswith(f"/tasks/{task_id}{mapped}/plugin/kling")
    assert (links["Kling gallery"] or "").endswith("/plugin/kling-run")
    found = links.get("Saved file") or None
    assert (found is None) == (saved is None), found
    if found is not None and saved is not None:
        assert found.endswith(saved)
        if saved.endswith("/video"):
            answer = airflow.get(found.removeprefix(f"{airflow.url}/kling/"), user="anna")
            assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
