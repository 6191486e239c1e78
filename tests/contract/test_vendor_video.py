from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from airflow_provider_kling.hooks.kling import KlingHook
from airflow_provider_kling.ui.files.recorded import UnavailableError
from airflow_provider_kling.ui.files.vendor_video import open_video


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatorThread]:
    pytest.importorskip("av", reason="the emulator renders videos with it")
    with EmulatorThread(EmulatorOptions(queued_seconds=0, generating_seconds=0)) as running:
        connection = {"conn_type": "kling", "host": running.url, "password": running.api_key}
        monkeypatch.setenv("AIRFLOW_CONN_KLING_UI", json.dumps(connection))
        yield running


def submitted(prompt: str = "Steam rises.") -> str:
    model = "kling-video/v1.6/standard/text-to-video"
    hook = KlingHook("kling_ui")
    return hook.get_conn().submit(GenerationRequest(model, {"prompt": prompt, "duration": 5})).id


def test_a_range_of_the_vendor_s_video_comes_through(
    vendor: EmulatorThread, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    generation_id = submitted()
    whole = b"".join(open_video(generation_id, "kling_ui", None).chunks())
    assert whole[4:8] == b"ftyp"
    part = open_video(generation_id, "kling_ui", "bytes=10-19")
    assert part.status == 206
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert b"".join(part.chunks()) == whole[10:20]
    assert open_video(generation_id, "kling_ui", f"bytes={len(whole)}-").status == 416
    assert not {"etag", "location", "set-cookie"} & part.headers.keys()
    assert "ksSecret=" not in caplog.text


def test_each_look_asks_for_a_fresh_url_and_the_key_stays_here(vendor: EmulatorThread) -> None:
    generation_id = submitted()
    for _ in range(2):
        b"".join(open_video(generation_id, "kling_ui", None).chunks())
    assert sum(entry.call == "poll" for entry in vendor.journal) == 2
    assert not any(entry.authorization for entry in vendor.journal if entry.call == "cdn")


@pytest.mark.parametrize("generation_id", ["nobody-s", "../../v2/billing", "a b\r\nx: y"])
def test_an_id_that_the_vendor_does_not_know_is_a_reason(vendor: EmulatorThread, generation_id: str) -> None:
    with pytest.raises(UnavailableError, match="vendor"):
        open_video(generation_id, "kling_ui", None)


def test_a_generation_without_a_video_is_a_reason(vendor: EmulatorThread) -> None:
    with pytest.raises(UnavailableError, match="ended in an error"):
        open_video(submitted("[emulator: fail] Steam."), "kling_ui", None)


def test_a_connection_that_is_not_there_is_a_reason() -> None:
    with pytest.raises(UnavailableError, match="connection no_such_connection"):
        open_video("some-id", "no_such_connection", None)
