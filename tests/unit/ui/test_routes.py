"""Who gets what: authentication, permissions, forged ids and ranges, and what is opened on the way."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.unit.ui.airflow_rows import MODEL, NOW, Rows, generated, request, video
from tests.unit.ui.conftest import Viewer

MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isommp42" + bytes(range(256)) * 16
JPEG = b"\xff\xd8\xff\xe0" + b"\x00" * 200
RUN = "manual__2026-11-20T12:00:00+00:00"


@dataclass
class World:
    """Two DAGs with recorded files, and files beside them that nobody has recorded."""

    folder: Path
    viewer: Viewer
    recorded: set[str] = field(default_factory=set)

    def address(
        self, dag_id: str, task_id: str, what: str, *, map_index: int = -1, attempt: int = 1, place: int = 0
    ) -> str:
        run = f"api/dags/{dag_id}/runs/{quote(RUN, safe='')}/tasks/{task_id}/{map_index}"
        return f"{run}/attempts/{attempt}/generations/{place}/{what}"


def batch_rows(folder: Path, medium: dict[str, Any]) -> list[dict[str, Any]]:
    """A manifest: what a batch writes, and rows that somebody has forged."""
    asked = {"model": MODEL, "parameters": {"prompt": "A mug.", "image_url": medium}}
    made = {"generation_id": "b1", "cost": {"usd": 0.4}, "submitted_at": 10.0, "saved_at": 90.0}
    mug = {"key": "mug", "status": "saved", "path": f"{folder}/clips/mug.mp4", "request": asked, **made}
    return [
        mug | {"video": {"duration": 5.0, "size": len(MP4)}},
        {**mug, "key": "lamp", "status": "reused", "path": f"{folder}/clips/lamp.mp4"},
        {"key": "bad", "status": "failed", "error": "The vendor rejected it. https://h/v.mp4?sign=secret"},
        {"key": "row 4", "status": "invalid", "error": "It has no prompt."},
        {"key": "forged", "status": "saved", "path": f"{folder}/decoy.mp4"},
        {"key": "climbing", "status": "saved", "path": f"{folder}/clips/../decoy.mp4"},
    ]


@pytest.fixture(scope="module")
def world(airflow_database: Path, viewer: Viewer, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("files")
    made = World(folder, viewer)
    for name in ("open.mp4", "hidden.mp4", "first.mp4", "second.mp4"):
        (folder / name).write_bytes(MP4)
        made.recorded.add(str(folder / name))
    (folder / "mug.jpg").write_bytes(JPEG)
    made.recorded.add(str(folder / "mug.jpg"))
    (folder / "decoy.mp4").write_bytes(MP4)
    (folder / "airflow.cfg").write_text("[core]\nfernet_key = secret\n")
    (folder / "text.mp4").write_text("no video at all")
    made.recorded.add(str(folder / "text.mp4"))
    medium = {
        "source": str(folder / "mug.jpg"),
        "sha256": hashlib.sha256(JPEG).hexdigest(),
        "size": len(JPEG),
    }
    with Rows() as rows:
        rows.run("shop", RUN)
        rows.run("campaign", RUN)
        rows.task(
            "shop",
            RUN,
            "generate",
            generated("open", path=folder / "open.mp4", image_url=medium),
            conn_id="none",
        )
        rows.task("campaign", RUN, "generate", generated("hidden", path=folder / "hidden.mp4"))
        rows.task("shop", RUN, "text", generated("text", path=folder / "text.mp4"), conn_id="none")
        rows.task("shop", RUN, "gone", generated("gone", path=folder / "gone.mp4"), conn_id="none")
        rows.task("shop", RUN, "foreign", {"return_value": 5}, operator="PythonOperator")
        rows.task("shop", RUN, "queued", {}, state="queued")
        rows.task(
            "shop",
            RUN,
            "variants",
            {
                "generation_id": ["v0", "v1", None],
                "request": [request("One."), request("Two."), None],
                "video": [video(folder / "first.mp4", "v0"), video(folder / "second.mp4", "v1"), None],
                "generation": [{"id": "v0", "status": "completed"}, {"id": "v1", "status": "completed"}],
                "failure": [
                    None,
                    None,
                    {"generation_id": "", "error": {"kind": "BadRequestError", "message": "No."}},
                ],
            },
            state="failed",
        )
        clips = folder / "clips"
        clips.mkdir()
        for name in ("mug", "lamp"):
            (clips / f"{name}.mp4").write_bytes(MP4)
            made.recorded.add(str(clips / f"{name}.mp4"))
        made.recorded.add(str(clips / "manifest-1.jsonl"))
        (clips / "manifest-1.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in batch_rows(folder, medium))
        )
        summary = {
            "total": 6,
            "saved": 3,
            "reused": 1,
            "failed": 1,
            "invalid": 1,
            "cost_usd": 1.2,
            "video_seconds": 20.1,
        }
        summary |= {"manifest": f"{clips}/manifest-1.jsonl", "finished": True}
        rows.task(
            "shop", RUN, "batch", {"batch": summary}, state="failed", operator="KlingGenerateBatchOperator"
        )
        rows.task("campaign", RUN, "batch", {"batch": summary}, operator="KlingGenerateBatchOperator")
        rows.task("shop", RUN, "retried", generated("r", path=folder / "open.mp4"), try_number=2)
        rows.earlier_attempt("shop", RUN, "retried")
    return made


def test_nobody_gets_anything_without_logging_in(world: World) -> None:
    client = world.viewer(None)
    for address in (
        "",
        "api/generations",
        "api/summary",
        f"api/dags/shop/runs/{RUN}/tasks/generate/-1",
        world.address("shop", "generate", "video"),
        world.address("shop", "generate", "pictures/0"),
    ):
        assert client.get(address).status_code == 401, address
    assert client.get("static/kling.js").status_code == 200


def test_a_forged_token_is_refused(world: World) -> None:
    client = world.viewer("anna")
    client.cookies["_token"] = client.cookies["_token"][:-4] + "AAAA"
    assert client.get("api/generations").status_code in (401, 403)


def test_every_route_asks_who_the_viewer_is() -> None:
    from airflow_provider_kling.ui.app import app

    guarded = 0
    for route in app().routes:
        if getattr(route, "dependant", None) is None:
            assert route.path == "/static", route.path
            continue
        calls = [getattr(each.call, "__qualname__", "") for each in _flat(route.dependant)]
        assert "get_user" in calls, route.path
        if "{dag_id}" in route.path:
            assert sum(each.startswith("requires_access_dag") for each in calls) == 2, route.path
        guarded += 1
    assert guarded >= 5


def _flat(dependant: Any) -> Iterator[Any]:
    for each in dependant.dependencies:
        yield each
        yield from _flat(each)


def test_the_other_user_s_dag_does_not_exist(world: World) -> None:
    ben, anna = world.viewer("ben"), world.viewer("anna")
    for what in ("video", "pictures/0"):
        assert ben.get(world.address("campaign", "generate", what)).status_code == 403
    assert ben.get(f"api/dags/campaign/runs/{RUN}/tasks/generate/-1").status_code == 403
    seen = {each["dag_id"] for each in ben.get("api/generations").json()["generations"]}
    assert seen == {"shop"}
    assert ben.get("api/generations", params={"dag_id": "campaign"}).json()["generations"] == []
    assert (
        ben.get("api/generations", params={"dag_id": "campaign", "status": "completed"}).json()["generations"]
        == []
    )
    mine, all_ = ben.get("api/summary").json(), anna.get("api/summary").json()
    assert all_["count"] == mine["count"] + 1 + 4  # a generation, and the rows of a batch
    assert mine["facets"]["dags"] == ["shop"]
    assert "campaign" in all_["facets"]["dags"]
    assert "campaign" not in str(mine)
    assert "hidden" not in str(ben.get("api/generations").json())


def test_a_video_is_served_whole_and_in_parts(world: World) -> None:
    client, address = world.viewer("anna"), world.address("shop", "generate", "video")
    whole = client.get(address)
    assert (whole.status_code, whole.content) == (200, MP4)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.headers["content-disposition"].startswith('inline; filename="open.mp4"')
    assert whole.headers["accept-ranges"] == "bytes"
    assert "private" in whole.headers["cache-control"]
    part = client.get(address, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, MP4[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(MP4)}"
    assert client.get(address, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    assert (
        client.get(address, params={"download": True}).headers["content-disposition"].startswith("attachment")
    )


@pytest.mark.parametrize("wanted", ["bytes=99999-", "bytes=9-3", "bytes=x", "lines=1-2", "bytes=0-1,3-4"])
def test_a_forged_range_is_refused(world: World, wanted: str) -> None:
    answer = world.viewer("anna").get(world.address("shop", "generate", "video"), headers={"Range": wanted})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(MP4)}"


def test_each_variant_has_its_own_video(world: World) -> None:
    client = world.viewer("anna")
    assert client.get(world.address("shop", "variants", "video", place=1)).status_code == 200
    assert client.get(world.address("shop", "variants", "video", place=2)).status_code == 404
    view = client.get(f"api/dags/shop/runs/{RUN}/tasks/variants/-1").json()
    assert [each["status"] for each in view["generations"]] == ["saved", "saved", "failed"]
    assert view["generations"][2]["failure"]["message"] == "No."


@pytest.mark.parametrize(
    "forged",
    [
        {"dag_id": "nobody"},
        {"dag_id": "~"},
        {"task_id": "nothing"},
        {"task_id": "foreign"},
        {"map_index": 7},
        {"attempt": 9},
        {"attempt": 0},
        {"place": 5},
        {"place": -1},
    ],
)
def test_forged_ids_find_nothing(world: World, forged: dict[str, Any]) -> None:
    where = {"dag_id": "shop", "task_id": "generate", **forged}
    address = world.address(where.pop("dag_id"), where.pop("task_id"), "video", **where)
    assert world.viewer("anna").get(address).status_code == 404


def test_what_is_at_the_path_must_be_a_video(world: World) -> None:
    answer = world.viewer("anna").get(world.address("shop", "text", "video"))
    assert answer.status_code == 404
    assert "not of the kind" in answer.json()["detail"]
    assert b"no video at all" not in answer.content


def test_where_neither_file_nor_vendor_can_be_reached_the_answer_says_why(world: World) -> None:
    answer = world.viewer("anna").get(world.address("shop", "gone", "video"))
    assert answer.status_code == 404
    assert "The saved file: There is no such file where the API server looks." in answer.json()["detail"]
    assert "The vendor: " in answer.json()["detail"]


def batch_address(what: str = "", dag_id: str = "shop") -> str:
    return f"api/dags/{dag_id}/runs/{quote(RUN, safe='')}/tasks/batch/-1/attempts/1/rows{what}"


def test_a_batch_shows_how_far_it_is_and_its_rows(world: World) -> None:
    client = world.viewer("anna")
    (found,) = client.get(f"api/dags/shop/runs/{RUN}/tasks/batch/-1").json()["generations"]
    assert found["status"] == "failed"
    assert found["video_url"] is None
    batch = found["batch"]
    assert (batch["total"], batch["counts"]["saved"], batch["counts"]["failed"]) == (6, 3, 1)
    assert (batch["cost_usd"], batch["seconds"], batch["finished"]) == (1.2, 20.1, True)
    page = client.get(batch["rows_url"]).json()
    assert [(each["label"], each["status"]) for each in page["rows"][:4]] == [
        ("mug", "saved"),
        ("lamp", "reused"),
        ("bad", "failed"),
        ("row 4", "invalid"),
    ]
    assert (page["count"], page["pages"], page["complete"]) == (6, 1, True)
    mug = page["rows"][0]
    assert (mug["prompt"], mug["model"], mug["waited"], mug["cost"]["usd"]) == ("A mug.", MODEL, 80.0, 0.4)
    assert client.get(mug["video_url"]).content == MP4
    assert client.get(mug["pictures"][0]["url"]).content == JPEG
    assert page["rows"][2]["failure"]["message"].startswith("The vendor rejected it.")
    assert "secret" not in str(page)
    failed = client.get(batch_address(), params={"status": "failed"}).json()
    assert [each["label"] for each in failed["rows"]] == ["bad"]
    assert client.get(batch_address(), params={"text": "LAM"}).json()["count"] == 1
    assert client.get(batch_address(), params={"page": 2}).json()["rows"] == []


def test_a_row_s_file_outside_of_the_batch_s_folder_is_not_served(world: World) -> None:
    client = world.viewer("anna")
    for name in ("forged", "climbing", "bad", "nothing", "..%2fdecoy", "manifest-1"):
        assert client.get(batch_address(f"/{name}/video")).status_code == 404


def test_the_rows_of_the_other_user_s_batch_are_not_told(world: World) -> None:
    ben = world.viewer("ben")
    for what in ("", "/mug/video", "/mug/pictures/0"):
        assert ben.get(batch_address(what, "campaign")).status_code == 403
        assert ben.get(batch_address(what)).status_code == 200
        assert world.viewer(None).get(batch_address(what)).status_code == 401


def test_a_task_that_is_no_batch_has_no_rows(world: World) -> None:
    address = batch_address().replace("/batch/", "/generate/")
    answer = world.viewer("anna").get(address)
    assert answer.status_code == 404
    assert "has not recorded where its rows are" in answer.json()["detail"]


def test_a_picture_is_the_one_that_was_sent(world: World) -> None:
    client = world.viewer("anna")
    answer = client.get(world.address("shop", "generate", "pictures/0"))
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, JPEG, "image/jpeg")
    for number in (1, -1, 99):
        assert client.get(world.address("shop", "generate", f"pictures/{number}")).status_code == 404


def test_a_foreign_task_has_a_quiet_tab_and_an_unknown_one_none(world: World) -> None:
    client = world.viewer("anna")
    view = client.get(f"api/dags/shop/runs/{RUN}/tasks/foreign/-1").json()
    assert (view["kind"], view["generations"], view["going_on"]) == ("other", [], False)
    assert client.get(f"api/dags/shop/runs/{RUN}/tasks/unknown/-1").status_code == 404
    # The address of an unmapped task's tab has Airflow's placeholder in it as it is.
    assert client.get(f"api/dags/shop/runs/{RUN}/tasks/generate/%7BMAP_INDEX%7D").status_code == 200


def test_a_queued_task_is_waited_for_and_a_retried_one_shows_its_attempts(world: World) -> None:
    client = world.viewer("anna")
    queued = client.get(f"api/dags/shop/runs/{RUN}/tasks/queued/-1").json()
    assert (queued["going_on"], [each["status"] for each in queued["generations"]]) == (True, ["queued"])
    retried = client.get(f"api/dags/shop/runs/{RUN}/tasks/retried/-1").json()
    assert [(each["try_number"], each["state"], each["current"]) for each in retried["attempts"]] == [
        (2, "success", True),
        (1, "failed", False),
    ]
    assert not retried["going_on"]


def test_no_signed_url_and_no_key_leaves(world: World) -> None:
    client = world.viewer("anna")
    for address in ("", "api/generations", "api/summary", f"api/dags/shop/runs/{RUN}/tasks/generate/-1"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert "ksSecret" not in answer.text
        assert "cdn.example" not in answer.text


def test_the_page_may_load_nothing_but_its_own_files(world: World) -> None:
    answer = world.viewer("anna").get("")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'self'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "<script>" not in answer.text
    assert " style=" not in answer.text


def test_the_app_s_own_documentation_is_not_served(world: World) -> None:
    client = world.viewer(None)
    assert {client.get(path).status_code for path in ("docs", "redoc", "openapi.json")} == {404}


def test_a_thousand_odd_requests_open_no_file_that_was_not_recorded(world: World) -> None:
    opened: set[str] = set()
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[0], str | bytes):
            name = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]
            if name.startswith(str(world.folder)) or name.startswith(("/etc/passwd", "/proc/self/environ")):
                opened.add(name)

    sys.addaudithook(watch)
    rng = random.Random(7)
    client = world.viewer("anna")
    client.raise_server_exceptions = False
    decoy = str(world.folder / "decoy.mp4")
    odd = [decoy, quote(decoy, safe=""), "../decoy.mp4", "..%2fdecoy.mp4", "file://" + decoy, "/etc/passwd", "%2e%2e", "\x00", "~", "*", "",
           "https://example.com/x.mp4", "generate", "shop", RUN, "-1", "0", "1", "1e3", "9" * 40, "variants", "' OR 1=1 --"]  # fmt: skip
    statuses = set()
    for _ in range(1000):
        parts = [rng.choice([usual, rng.choice(odd)]) for usual in ("shop", RUN, "generate", "-1", "1", "0")]
        dag_id, run_id, task_id, index, attempt, place = (quote(part, safe="%") for part in parts)
        what = rng.choice(["video", "video", "pictures/0", f"pictures/{rng.choice(odd)}", rng.choice(odd)])
        address = f"api/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{index}/attempts/{attempt}/generations/{place}/{quote(what, safe='/%')}"
        if rng.random() < 0.3:
            row = rng.choice(["mug", "forged", "climbing", *odd])
            address = batch_address(
                f"/{quote(row, safe='%')}/{quote(what, safe='/%')}", rng.choice(["shop", dag_id])
            )
        query = {rng.choice(["path", "url", "kling_conn_id", "download", "source"]): rng.choice(odd)}
        headers = (
            {"Range": rng.choice(["bytes=0-9", "bytes=5-", "bytes=--", "x" * 50])}
            if rng.random() < 0.3
            else {}
        )
        statuses.add(client.get(address, params=query, headers=headers).status_code)
    watching = False
    assert statuses <= {200, 206, 307, 403, 404, 405, 416, 422}, statuses
    assert 200 in statuses
    assert opened <= world.recorded, opened - world.recorded
    assert {str(world.folder / name) for name in ("open.mp4", "clips/mug.mp4")} <= opened


def test_times_are_the_submit_and_the_moment_that_the_task_saw_the_video(world: World) -> None:
    with Rows() as rows:
        rows.run("shop", "timed")
        rows.task("shop", "timed", "generate", generated("t"), xcoms_at=NOW + timedelta(seconds=61))
    (found,) = world.viewer("anna").get("api/dags/shop/runs/timed/tasks/generate/-1").json()["generations"]
    assert found["waited"] == 61
    assert found["usual_seconds"] == 122
    assert found["status"] == "completed"
    assert found["video_url"].endswith("/video")
