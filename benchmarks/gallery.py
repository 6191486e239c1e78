"""How fast the gallery of the plugin answers with many generations in Airflow's database.

Each generation is made by three tasks (generate, wait, download), as most DAGs do, and each has a task
beside it that has nothing to do with it. The database is SQLite; what is measured is what the API server does
for one request, from the DAGs with generations to the JSON of the answer.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

DAG = "shop"
EVERY_RUN = 10
"""Mapped instances of each task in a run."""


def fill(count: int) -> None:
    """Write generations, and what they are lost among."""
    from tests.unit.ui.airflow_rows import NOW, Rows, generated

    for begin in range(0, count, 1000):
        with Rows() as rows:
            for number in range(begin, min(begin + 1000, count)):
                run, index = f"run{number // EVERY_RUN}", number % EVERY_RUN
                at = NOW - timedelta(minutes=30 * (number // EVERY_RUN))
                if index == 0:
                    rows.run(DAG, run, at=at)
                prompt = f"Steam rises from mug number {number % 97}, seen from above. " * 3
                said = generated(
                    f"g{number}", path=f"/v/{number}.mp4", prompt=prompt, submitted_at=at.timestamp()
                )
                mine = {name: said.pop(name) for name in ("client_request_id", "request")}
                found = {name: said.pop(name) for name in ("generation", "video_url", "cost")}
                rows.task(
                    DAG, run, "generate", {"generation_id": f"g{number}", **mine}, map_index=index, at=at
                )
                rows.task(DAG, run, "wait", found, map_index=index, at=at, operator="KlingGenerationSensor")
                saved = {name: said[name] for name in ("path", "video")}
                rows.task(
                    DAG, run, "download", saved, map_index=index, at=at, operator="KlingDownloadOperator"
                )
                other = {"return_value": {"rows": number, "note": "nothing to do with it"}, "more": [number]}
                rows.task(DAG, run, "other", other, map_index=index, at=at, operator="PythonOperator")


def requests(count: int) -> Iterator[tuple[str, bool, Callable[[Any], Any]]]:
    """What is asked, whether in a process that has read nothing yet, and how."""
    from airflow_provider_kling.ui import database, gallery, presentation
    from airflow_provider_kling.ui.datamodels import GalleryFilters, GalleryQuery
    from airflow_provider_kling.ui.generations import KEYS

    def page(**query: Any) -> Callable[[Any], Any]:
        def ask(session: Any) -> Any:
            dags = database.dags_with(session, KEYS)
            found, _ = gallery.page(session, dags, GalleryQuery(**query))
            return [presentation.generation(each).model_dump_json() for each in found]

        return ask

    def totals(session: Any) -> Any:
        dags, everything = database.dags_with(session, KEYS), GalleryFilters()
        return gallery.summary(gallery.entries(session, dags, everything), everything).model_dump_json()

    last = -(-count // gallery.PAGE_SIZE)
    yield "first page", True, page()
    yield "second page", False, page(page=2)
    yield f"page {last // 2}", False, page(page=last // 2)
    for what, ask in (
        ("highest cost first", page(sort="dearest")),
        ("words in the prompt", page(text="number 42,")),
        (
            "completed, of one model",
            page(status="completed", model="kling-video/v1.6/standard/image-to-video"),
        ),
        ("totals and plots", totals),
    ):
        yield f"{what}, first request of a process", True, ask
        yield what, False, ask


def main() -> None:
    """Print queries, wall time and CPU of each request."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--generations", type=int, default=10_000)
    count = parser.parse_args().generations
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AIRFLOW_HOME"] = folder
        from airflow.utils.session import create_session

        from airflow_provider_kling.ui import database as plugin_database
        from airflow_provider_kling.ui import gallery
        from tests.unit.ui.airflow_rows import counted_queries, database

        with database(Path(folder)):
            fill(count)
            print(f"{count:,} generations; Python {platform.python_version()}")
            print(f"{'':46}{'queries':>8}{'s':>8}{'s of CPU':>10}")
            for what, fresh, ask in requests(count):
                if fresh:
                    gallery._kept.clear()
                    plugin_database._dags_seen.clear()
                with create_session() as session, counted_queries() as queries:
                    begun, cpu = time.perf_counter(), time.thread_time()
                    ask(session)
                    took, cpu = time.perf_counter() - begun, time.thread_time() - cpu
                print(f"{what:46}{len(queries):>8}{took:>8.2f}{cpu:>10.2f}")


if __name__ == "__main__":
    main()
