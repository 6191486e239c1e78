"""Landing a video against curl: throughput over loopback, and memory from 10 MB to 1 GB.

Run with ``python benchmarks/download.py``; it needs curl and 2.5 GB of temporary disk, and takes
about a minute. One server process sends real MP4 files with sendfile. A landing is timed whole, as a
task does it: the URL is asked for, the file streamed, hashed, flushed to the disk, read to its end
by the demuxer, renamed. curl only writes what comes; ``curl + fsync + sha256sum`` does what of the
rest the command line can, and ``download`` is the part of a landing that curl does: the stream, written
to a file. Runs alternate, medians count, and a run that failed ends the benchmark.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

MB = 1_000_000
TIMED = 200
SIZES = (10, 200, 1000)
"""MB."""


class Run(NamedTuple):
    """One run, that did not fail."""

    seconds: float
    grown_kb: float = 0.0
    sha256: str | None = None


def serve(folder: Path) -> None:
    """Send the folder's files, whole, until stdin ends; prints its port first."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with (folder / Path(self.path).name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                self.send_response(200)
                self.send_header("Content-Type", "video/mp4")
                self.send_header("Content-Length", str(size))
                self.send_header("ETag", f'"{size}"')
                self.end_headers()
                self.connection.sendfile(file)

        def log_message(self, *args: object) -> None:
            """A benchmark needs no access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def make_video(path: Path, size: int) -> None:
    """An MP4 of about so many bytes: one clip of noise, its packets written again and again."""
    import av
    from PIL import Image

    clip = BytesIO()
    with av.open(clip, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 1280, 720, "yuv420p", 100_000_000
        for number in range(24):
            noise = Image.effect_noise((1280, 720), 60 + number).convert("RGB")
            container.mux(stream.encode(av.VideoFrame.from_image(noise)))
        container.mux(stream.encode())
    clip.seek(0)
    with av.open(clip) as source, av.open(str(path), "w") as target:
        packets = [(bytes(each), each.is_keyframe) for each in source.demux(video=0) if each.size]
        copied = target.add_stream_from_template(source.streams.video[0])
        base = source.streams.video[0].time_base
        step = round(1 / (24 * base))
        written = frame = 0
        while written < size:
            data, key = packets[frame % len(packets)]
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = copied, base, key
            packet.pts = packet.dts = frame * step
            packet.duration = step
            target.mux(packet)
            written += len(data)
            frame += 1


def run_once(how: str, url: str, target: Path) -> None:
    """In a process of its own: print seconds, peak growth of memory, and what ``landing`` says it got.

    :param how: ``landing``, or ``download`` for the part of it that curl does.
    """
    from airflow_provider_kling.api.client import KlingClient
    from airflow_provider_kling.api.download.resumable_fetch import CHUNK
    from airflow_provider_kling.api.download.save_video import save_video
    from airflow_provider_kling.api.generation import Generation, GenerationStatus
    from airflow_provider_kling.api.settings import Settings

    sha256 = None
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of the imports
    before = peak_kb()
    with KlingClient(Settings("benchmark")) as client:
        began = time.perf_counter()
        if how == "landing":
            done = Generation("benchmark", GenerationStatus.COMPLETED, "completed", video_url=url)
            sha256 = save_video(client.fetch, lambda: done, target, generation_id="benchmark").sha256
        else:
            with client.fetch(url, {}) as reply, target.open("wb") as file:
                for chunk in reply.chunks(CHUNK):
                    file.write(chunk)
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "grown_kb": peak_kb() - before, "sha256": sha256}))


def peak_kb() -> int:
    """The most memory that this process has had, as Linux counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def ours(how: str, url: str, target: Path) -> Run:
    command = [sys.executable, __file__, "--once", how, url, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"A {how} failed:\n{done.stderr}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def commands(*lines: list[str]) -> Run:
    began = time.perf_counter()
    for line in lines:
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{line[0]} failed:\n{done.stderr}")
    return Run(time.perf_counter() - began)


CONTENDERS: dict[str, Callable[[str, Path], Run]] = {
    "curl": lambda url, target: commands(["curl", "-sSf", "-o", str(target), url]),
    "download": lambda url, target: ours("download", url, target),
    "curl + fsync + sha256sum": lambda url, target: commands(
        ["curl", "-sSf", "-o", str(target), url], ["sync", str(target)], ["sha256sum", str(target)]
    ),
    "landing": lambda url, target: ours("landing", url, target),
}


def checked(name: str, url: str, target: Path, sha256: str) -> Run:
    """One run from a clean slate; another file than the server's ends the benchmark."""
    target.unlink(missing_ok=True)
    os.sync()  # what the run before left to write is not this one's
    run = CONTENDERS[name](url, target)
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256 or run.sha256 not in (None, sha256):
        raise SystemExit(f"{name} brought another file.")
    return run


def main() -> None:
    if not Path("/proc/self/clear_refs").exists():
        raise SystemExit("Peak memory is read from /proc: this needs Linux.")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--once", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    if options.once:
        run_once(options.once[0], options.once[1], Path(options.once[2]))
        return
    if shutil.which("curl") is None:
        raise SystemExit("This needs curl on the PATH.")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {options.runs} runs each, medians")
    with tempfile.TemporaryDirectory(prefix="kling-benchmark-") as name, serving(Path(name)) as address:
        folder = Path(name)
        memory = {}
        for size in SIZES:
            video = folder / f"{size}.mp4"
            make_video(video, size * MB)
            with video.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            url, target = f"{address}/{video.name}", folder / "saved.mp4"
            timed = size == TIMED
            runs: dict[str, list[Run]] = {name: [] for name in (CONTENDERS if timed else ["landing"])}
            for _ in range(options.runs if timed else 1):
                for each, done in runs.items():  # alternating: what slows the machine down slows all
                    done.append(checked(each, url, target, sha256))
            target.unlink()
            memory[size] = statistics.median(run.grown_kb for run in runs["landing"]) / 1000
            if timed:
                megabytes = video.stat().st_size / MB
                medians = {
                    each: statistics.median(run.seconds for run in done) for each, done in runs.items()
                }
            video.unlink()
    print(f"\n{megabytes:.0f} MB over loopback      s    MB/s   of curl's")
    for each, taken in medians.items():
        print(f"{each:<25}{taken:6.2f}{megabytes / taken:8.0f}{medians['curl'] / taken:10.2f}")
    print("\nMemory that a landing adds to a process, peak")
    for size, grown in memory.items():
        print(f"{size:>5} MB video  {grown:6.1f} MB")


if __name__ == "__main__":
    main()
