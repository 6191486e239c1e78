"""What arrives of pictures, through both clients, and what sending them takes."""

from __future__ import annotations

import gc
import hashlib
import json
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import pytest

from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.media.resolve import resolve_all
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.body import JsonBody
from airflow_provider_kling.api.transport.endpoints import Endpoints
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.contract.conftest import Connect
from tests.media_samples import picture

MIB = 1024 * 1024
MODEL = "klingai/video-o1-reference-to-video"
PROMPT = 'A "cat" \\ 🐈.'


def shown(content: bytes) -> str:
    """As the emulator keeps a medium that it was sent."""
    return f"sha256:{hashlib.sha256(content).hexdigest()} ({len(content)} bytes)"


def request(*pictures: Path | str, element: Path | None = None) -> GenerationRequest:
    parameters: dict[str, object] = {"prompt": PROMPT, "image_list": [str(each) for each in pictures]}
    if element is not None:
        parameters["elements"] = [{"frontal_image_url": str(element), "reference_image_urls": [str(element)]}]
    sent, _ = resolve_all(MODEL, parameters, open_path=pytest.fail)
    return GenerationRequest(MODEL, sent)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    png, jpeg = tmp_path / "a.png", tmp_path / "b.jpg"
    png.write_bytes(picture("PNG", (700, 500)) + bytes(1))
    jpeg.write_bytes(picture("JPEG", colour=(9, 9, 9)) + bytes(400_000))
    return png, jpeg


def test_pictures_arrive_as_they_were_checked(
    connect: Connect, vendor: EmulatorThread, pictures: tuple[Path, Path]
) -> None:
    png, jpeg = (each.read_bytes() for each in pictures)
    asked = request(*pictures, element=pictures[1])
    for each in pictures:
        each.write_bytes(b"something else by now")
    driver = connect(vendor)

    driver.run(driver.calls.submit(asked, "a:b"))

    (generation,) = vendor.generations
    assert generation["parameters"] == {
        "prompt": PROMPT,
        "image_list": [shown(png), shown(jpeg)],
        "elements": [{"frontal_image_url": shown(jpeg), "reference_image_urls": [shown(jpeg)]}],
    }


def test_a_refused_submit_is_sent_again_whole(
    connect: Connect, vendor: EmulatorThread, pictures: tuple[Path, Path]
) -> None:
    vendor.faults.add("submit", 429, times=2)
    driver = connect(vendor)

    driver.run(driver.calls.submit(request(*pictures), "a:b"))

    (generation,) = vendor.generations
    assert generation["parameters"]["image_list"] == [shown(each.read_bytes()) for each in pictures]
    assert [entry.status for entry in vendor.journal] == [429, 429, 201]


def test_the_body_has_a_length_and_shows_nothing(vendor: EmulatorThread, pictures: tuple[Path, Path]) -> None:
    asked = request(*pictures)
    settings = Settings(vendor.api_key, base_url=vendor.url)
    sending = Endpoints(settings, lambda: 0.0).submit(asked)

    assert isinstance(sending.body, JsonBody)
    text = b"".join(sending.body)
    assert len(sending.body) == len(text)
    assert max(map(len, sending.body)) <= 256 * 1024
    assert json.loads(text)["prompt"] == PROMPT
    for value in (asked, sending, sending.body, asked.body()):
        assert "iVBOR" not in repr(value)
        assert "/9j/" not in repr(value)


def test_variants_share_a_picture_and_nothing_stays_open(pictures: tuple[Path, Path]) -> None:
    def open_files() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    asked = [request(*pictures, element=pictures[0]) for _ in range(20)]
    assert open_files() == before + 2

    del asked
    assert open_files() == before


def one_chunk(png: bytes) -> bytes:
    """The same picture, all its pixels in one chunk."""
    pixels, rest, at = b"", [b"", b""], 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        if kind == b"IDAT":
            pixels += png[at + 8 : at + 8 + length]
        else:
            rest[bool(pixels)] += png[at : at + 12 + length]
        at += 12 + length
    chunk = struct.pack(">I4s", len(pixels), b"IDAT") + pixels
    return png[:8] + rest[0] + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + rest[1]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Pictures of 50 MB each, or together."""
    folder = tmp_path_factory.mktemp("large")

    def write(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    png, part = (picture("PNG", size, compress_level=0) for size in ((4100, 4230), (2300, 2400)))
    # comments of the most that one may have, as a camera's preview would take the space
    comment = b"\xff\xfe\xff\xff" + bytes(65533)
    jpeg = picture("JPEG")
    jpeg = jpeg[:2] + comment * (49 * MIB // len(comment)) + jpeg[2:]
    many = write("many.png", png)
    given = {
        "PNG": [many],
        "data URI": [many],
        "PNG in one chunk": [write("one.png", one_chunk(png))],
        "JPEG": [write("a.jpg", jpeg)],
        "several": [write(f"{number}.png", part + bytes([number])) for number in range(3)],
    }
    for files in given.values():
        assert 45 * MIB < sum(path.stat().st_size for path in files) <= 50 * MIB
    return given


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)
@pytest.mark.parametrize("client", ["requests", "aiohttp"])
@pytest.mark.parametrize(
    ("given", "most"),
    # Pillow keeps a JPEG's comments while it decodes it
    [("PNG", 10), ("PNG in one chunk", 10), ("data URI", 10), ("several", 10), ("JPEG", 70)],
)
def test_memory_of_a_process_that_sends_50_mb(
    client: str, given: str, most: float, large: dict[str, list[Path]]
) -> None:
    """From the files, or the text that it was given, to the answer; in MiB, without the imports."""
    script = """
        import asyncio, base64, sys
        from pathlib import Path
        from airflow_provider_kling.api.async_client import AsyncKlingClient
        from airflow_provider_kling.api.client import KlingClient
        from airflow_provider_kling.api.settings import Settings
        from airflow_provider_kling.hooks.prepare_request import prepare

        def memory(name):
            lines = Path("/proc/self/status").read_text().splitlines()
            return int(next(line.split()[1] for line in lines if line.startswith(name))) / 1024

        async def submit(settings, request):
            async with AsyncKlingClient(settings) as client:
                return await client.submit(request)

        client, given, url, key, model, *pictures = sys.argv[1:]
        if given == "data URI":
            content = base64.b64encode(Path(pictures[0]).read_bytes()).decode()
            pictures = [f"data:image/png;base64,{content}"]
            del content
        settings = Settings(key, base_url=url)
        Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        parameters = {"prompt": "A cat.", "image_list": pictures}
        request = prepare(model, parameters, image=None, account="a")
        if client == "requests":
            KlingClient(settings).submit(request)
        else:
            asyncio.run(submit(settings, request))
        print(memory("VmHWM") - before)
    """
    with EmulatorThread(EmulatorOptions()) as vendor:
        arguments = [client, given, vendor.url, vendor.api_key, MODEL, *map(str, large[given])]
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        (generation,) = vendor.generations or [None]

    assert done.returncode == 0, done.stderr[-3000:]
    assert generation["parameters"]["image_list"] == [shown(path.read_bytes()) for path in large[given]]
    assert float(done.stdout.splitlines()[-1]) < most
