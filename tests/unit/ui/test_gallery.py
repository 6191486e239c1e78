from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.utils.session import create_session

from airflow_provider_kling.ui import database, gallery
from airflow_provider_kling.ui.datamodels import GalleryFilters, GalleryQuery, Sort
from airflow_provider_kling.ui.gallery import PAGE_SIZE
from airflow_provider_kling.ui.generations import KEYS, GenerationFacts
from tests.unit.ui.airflow_rows import MODEL, NOW, Rows, counted_queries, generated, request

PRO = "kling-video/v1.6/pro/image-to-video"
FAILURE = {
    "schema": 1,
    "generation_id": "",
    "error": {"kind": "GenerationFailedError", "message": "Rejected."},
}


TABLES = len(list(database._xcom_tables()))
"""Airflow 3.4 has two tables of XComs."""


@pytest.fixture(scope="module")
def shop(airflow_database: Path) -> None:
    """Sixty runs of one DAG: every fifth failed, every third of another model, the last still under way."""
    with Rows() as rows:
        for number in range(60):
            at = NOW - timedelta(hours=number)
            asked: dict[str, Any] = {
                "prompt": f"Mug {number}, 50%_off; Größe {number % 2}",
                "model": PRO if number % 3 == 0 else MODEL,
                "submitted_at": at.timestamp(),
            }
            xcoms = generated(f"g{number}", path=f"/videos/{number}.mp4", usd=0.1 * (number % 7), **asked)
            state = "success"
            if number % 5 == 4:
                state, xcoms = (
                    "failed",
                    {"generation_id": f"g{number}", "request": request(**asked), "failure": FAILURE},
                )
            if number == 0:
                state, xcoms = "deferred", {"generation_id": "g0", "request": request(**asked)}
            rows.run("shop", f"run{number}", at=at, state="running" if number == 0 else "success")
            rows.task(
                "shop",
                f"run{number}",
                "generate",
                xcoms,
                state=state,
                at=at,
                xcoms_at=at + timedelta(seconds=90),
            )
        rows.run("other", "run0")
        rows.task("other", "run0", "generate", generated("other"))
    return


def page(number: int = 1, sort: Sort = "newest", **filters: Any) -> tuple[list[GenerationFacts], int]:
    with create_session() as session:
        return gallery.page(session, {"shop"}, GalleryQuery(page=number, sort=sort, **filters))


def ids(found: tuple[list[GenerationFacts], int]) -> list[str]:
    return [each.generation_id or "" for each in found[0]]


@pytest.mark.parametrize("filters", [{}, {"status": "completed"}, {"model": MODEL}, {"text": "mug"}])
@pytest.mark.parametrize("sort", ["newest", "oldest", "dearest", "cheapest"])
def test_pages_together_have_everything_once(shop: None, filters: dict[str, Any], sort: Sort) -> None:
    first, pages = page(sort=sort, **filters)
    together = [each for number in range(1, pages + 1) for each in ids(page(number, sort, **filters))]
    numbers = [
        number
        for number in range(60)
        if filters.get("status") != "completed" or (number > 0 and number % 5 != 4)
        if filters.get("model") != MODEL or number % 3 != 0
    ]
    assert sorted(together) == sorted(f"g{number}" for number in numbers)
    assert len(first) == min(PAGE_SIZE, len(numbers))
    assert page(pages + 1, sort, **filters)[0] == []


def test_the_database_s_way_and_the_other_agree(shop: None) -> None:
    assert ids(page()) == ids(page(text="m"))
    assert ids(page(2, "oldest")) == ids(page(2, "oldest", text="m"))


def test_what_costs_most_comes_first(shop: None) -> None:
    costs = [each.usd for each in page(sort="dearest")[0]]
    assert costs == sorted(costs, key=lambda usd: -1 if usd is None else usd, reverse=True)


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"status": "failed"}, 12),
        ({"status": "waiting"}, 1),
        ({"status": "completed"}, 47),
        ({"model": PRO}, 20),
        ({"text": "50%_off"}, 60),
        ({"text": "50x_off"}, 0),
        ({"text": "GRÖSSE 1"}, 30),
        ({"text": "größe 1"}, 30),
        ({"run_id": "run7"}, 1),
        ({"run_id": "run7", "dag_id": "shop"}, 1),
        ({"task_id": "wait"}, 0),
        ({"dag_id": "other"}, 0),
        ({"since": (NOW - timedelta(hours=9, minutes=30)).timestamp()}, 10),
        ({"until": (NOW - timedelta(hours=49, minutes=30)).timestamp()}, 10),
        ({"status": "failed", "model": PRO, "text": "mug"}, 4),
    ],
)
def test_a_filter_lets_through_what_it_says(shop: None, filters: dict[str, Any], count: int) -> None:
    with create_session() as session:
        wanted = GalleryFilters(**filters)
        told = gallery.summary(gallery.entries(session, {"shop"}, wanted), wanted)
    assert told.count == count
    found, pages = page(**filters)
    assert pages == max(1, -(-count // PAGE_SIZE))
    assert len(found) == min(count, PAGE_SIZE)


def test_a_dag_that_may_not_be_read_is_not_found_in_what_is_kept(shop: None) -> None:
    with create_session() as session:
        everything = GalleryFilters()
        assert len(gallery.entries(session, {"shop", "other"}, everything)) == 61
        assert {each.dag_id for each in gallery.entries(session, {"shop"}, everything)} == {"shop"}
        assert gallery.entries(session, set(), everything) == []
        for sort in ("newest", "dearest"):
            assert gallery.page(session, set(), GalleryQuery(sort=sort)) == ([], 1)


def test_the_plots_add_up(shop: None) -> None:
    with create_session() as session:
        told = gallery.summary(gallery.entries(session, {"shop"}, GalleryFilters()), GalleryFilters())
    assert sum(each.count for each in told.by_day) == told.count == 60
    assert sum(each.usd for each in told.by_day) == pytest.approx(told.usd)
    assert told.usd == pytest.approx(sum(0.1 * (n % 7) for n in range(1, 60) if n % 5 != 4))
    assert told.seconds == pytest.approx(47 * 5.04)
    assert {each.kind: each.count for each in told.failures} == {"GenerationFailedError": 12}
    assert {each.seconds for each in told.waits} == {90}
    assert told.facets.models == sorted([MODEL, PRO])


def test_a_dag_is_found_once_it_has_pushed_something_and_old_xcoms_are_looked_at_once(
    airflow_database: Path,
) -> None:
    with Rows() as rows:
        rows.task("early", "run0", "generate", generated("early"))
    with create_session() as session:
        database._dags_seen.clear()
        assert "early" in database.dags_with(session, KEYS)
        with Rows() as rows:
            rows.task("late", "run0", "generate", generated("late"), xcoms_at=datetime.now(UTC))
            rows.task("late", "run0", "foreign", {"return_value": 1}, xcoms_at=datetime.now(UTC))
        with counted_queries() as queries:
            assert {"early", "late"} <= database.dags_with(session, KEYS)
    assert all(">=" in query for query in queries)


def test_what_changed_is_read_again_and_nothing_else(shop: None) -> None:
    with create_session() as session:
        gallery.entries(session, {"shop"}, GalleryFilters())
        with counted_queries() as queries:
            gallery.entries(session, {"shop"}, GalleryFilters())
        assert len(queries) == TABLES
    with Rows() as rows:
        rows.task("shop", "run3", "again", generated("new"), at=NOW)
    with create_session() as session, counted_queries() as queries:
        found = gallery.entries(session, {"shop"}, GalleryFilters())
        assert len(queries) == 3 * TABLES
    assert "again" in {each.task_id for each in found}


def test_two_viewers_at_once_read_what_is_not_kept_once(shop: None, forgotten: None) -> None:
    def look() -> int:
        with create_session() as session:
            return len(gallery.entries(session, {"shop"}, GalleryFilters()))

    with counted_queries() as queries, ThreadPoolExecutor(4) as viewers:
        counts = [each.result() for each in [viewers.submit(look) for _ in range(4)]]
    assert len(set(counts)) == 1
    assert len(queries) == (4 + 2) * TABLES


def test_what_is_kept_has_a_bound(shop: None, forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "MOST_KEPT", 10)
    assert len(page(sort="dearest")[0]) == PAGE_SIZE
    assert sum(len(found) for _, found in gallery._kept.values()) <= 10
    assert len(page(sort="dearest")[0]) == PAGE_SIZE


def test_a_batch_counts_with_all_of_its_generations(airflow_database: Path) -> None:
    counts = {"total": 9, "saved": 5, "reused": 2, "failed": 1, "pending": 1}
    with Rows() as rows:
        rows.run("batches", "run0")
        batch = {**counts, "cost_usd": 2.0, "video_seconds": 35.0, "manifest": "/c/m.jsonl"}
        rows.task("batches", "run0", "batch", {"batch": batch})
        rows.task("batches", "run0", "one", generated("one", path="/c/1.mp4", usd=0.5))
    with create_session() as session:
        everything = GalleryFilters()
        told = gallery.summary(gallery.entries(session, {"batches"}, everything), everything)
        for sort in ("newest", "dearest"):
            found, pages = gallery.page(session, {"batches"}, GalleryQuery(sort=sort))
            assert ({bool(each.batch) for each in found}, pages) == ({True, False}, 1)
    assert (told.count, told.usd, told.seconds, told.usd_unknown) == (5 + 1 + 1, 2.5, 40.04, 0)
    assert {each.model: each.count for each in told.by_day} == {gallery.BATCH_MODEL: 6, MODEL: 1}
    assert {each.kind: each.count for each in told.failures} == {gallery.BATCH_FAILURE: 1}


@pytest.fixture
def forgotten() -> None:
    """A process that has read nothing yet."""
    gallery._kept.clear()


MANY = 10_000
SORTED: dict[str, Any] = {"sort": "dearest"}
FILTERED: dict[str, Any] = {"text": "seen 7 times", "status": "completed"}


@pytest.fixture(scope="module")
def many(airflow_database: Path) -> None:
    with Rows(NOW) as rows:
        for number in range(MANY // 10):
            at = NOW - timedelta(hours=number)
            rows.run("many", f"run{number}", at=at)
            for index in range(10):
                asked: dict[str, Any] = {
                    "prompt": f"A mug, seen {number} times. " * 4,
                    "submitted_at": at.timestamp(),
                }
                xcoms = generated(f"m{number}-{index}", path=f"/v/{number}-{index}.mp4", **asked)
                rows.task("many", f"run{number}", "generate", xcoms, map_index=index, at=at)
    database._dags_seen.clear()  # these XComs are dated back


def timed_page(number: int = 1, **query: Any) -> tuple[list[GenerationFacts], int, int, float]:
    """A page, how many pages there are, how many queries it took, and seconds of CPU."""
    with create_session() as session, counted_queries() as queries:
        started = time.thread_time()
        readable = database.dags_with(session, KEYS) & {"many"}
        found, pages = gallery.page(session, readable, GalleryQuery(page=number, **query))
        took = time.thread_time() - started
    return found, pages, len(queries), took


@pytest.mark.parametrize("number", [1, 2, 200, 417])
def test_ten_thousand_generations_take_few_queries_and_little_time(many: None, number: int) -> None:
    found, pages, queries, took = timed_page(number)
    assert queries == 2 + 3 * TABLES
    assert len(found) == (PAGE_SIZE if number < 417 else MANY % PAGE_SIZE)
    assert pages == 417
    assert took < 1.0, f"{took:.2f} s of CPU"


@pytest.mark.parametrize("query", [SORTED, FILTERED])
def test_sorts_and_filters_over_ten_thousand_take_few_queries_and_little_time(
    many: None, forgotten: None, query: dict[str, Any]
) -> None:
    found, pages, queries, took = timed_page(**query)
    assert queries == (1 + 1 + 2 + 2) * TABLES  # DAGs, versions of runs, what is not kept, the page
    assert len(found) == (PAGE_SIZE if query is SORTED else 10)
    assert took < 2.0, f"{took:.2f} s of CPU"
    for number in (1, min(2, pages)):
        found, pages, queries, took = timed_page(number, **query)
        assert queries == (1 + 1 + 2) * TABLES
        assert took < 1.0, f"{took:.2f} s of CPU"
