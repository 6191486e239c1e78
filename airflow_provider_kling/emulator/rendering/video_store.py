"""Finished videos: rendered once, when they are first requested, and kept in a bounded cache on disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_kling.emulator.rendering.media import PictureStore
from airflow_provider_kling.emulator.rendering.video import Film

_WORKERS = 2
_MAX_FILES = 256
_MAX_FILMS = 16
_MAX_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class VideoBrief:
    """The input of a video; the same brief gives the same bytes.

    :param label: which generation it is; shown at its beginning.
    :param seconds: its length.
    :param caption: the prompt.
    :param picture: sha256 of the reference picture; None where the model takes none.
    :param aspect_ratio: of a video without a picture.
    """

    label: str
    seconds: int
    caption: str
    picture: str | None
    aspect_ratio: str | None

    @property
    def key(self) -> str:
        """A name for the file."""
        return self._digest(self.label)

    @property
    def film_key(self) -> str:
        """A name for what it shares with other generations of the same picture and prompt."""
        return self._digest()

    def _digest(self, *more: str) -> str:
        facts = [*more, self.seconds, self.caption, self.picture, self.aspect_ratio]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A rendered video.

    :param size: bytes.
    :param etag: strong entity tag, quotes included.
    """

    path: Path
    size: int
    etag: str


class VideoStore:
    """Renders in threads; a video that several requests want at once is rendered once.

    :param folder: where the files are kept; its owner removes it.
    :param pictures: where the reference pictures are.
    :param pad_to: bytes that a file has at least; None for no padding.
    """

    def __init__(self, folder: Path, pictures: PictureStore, *, pad_to: int | None) -> None:
        self._folder = folder
        self._pictures = pictures
        self._pad_to = pad_to
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="kling-emulator-render")
        self._rendering: dict[str, asyncio.Task[VideoFile]] = {}
        self._files: OrderedDict[str, VideoFile] = OrderedDict()
        self._films: OrderedDict[str, Film] = OrderedDict()
        self._films_lock = threading.Lock()
        self.rendered = 0

    async def get(self, brief: VideoBrief) -> VideoFile:
        """The video, rendered now if it is not there."""
        key = brief.key
        if key in self._files:
            self._files.move_to_end(key)
            return self._files[key]
        task = self._rendering.get(key)
        if task is None:
            task = asyncio.create_task(self._render(brief))
            self._rendering[key] = task
            task.add_done_callback(lambda _: self._rendering.pop(key, None))
        # Shielded: a viewer who goes away must not stop it for the others.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for the renderings under way, and stop."""
        tasks = list(self._rendering.values())
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pool.shutdown()

    async def _render(self, brief: VideoBrief) -> VideoFile:
        loop = asyncio.get_running_loop()
        video = await loop.run_in_executor(self._pool, self._draw, brief)
        self.rendered += 1
        self._files[brief.key] = video
        while len(self._files) > 1 and (
            len(self._files) > _MAX_FILES or sum(file.size for file in self._files.values()) > _MAX_BYTES
        ):
            _, oldest = self._files.popitem(last=False)
            oldest.path.unlink(missing_ok=True)
        return video

    def _draw(self, brief: VideoBrief) -> VideoFile:
        path = self._folder / f"{brief.key}.mp4"
        self._film(brief).write(path, brief.label)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if self._pad_to is not None:
            _pad(path, self._pad_to)
        size = path.stat().st_size
        return VideoFile(path, size, f'"{digest[:32]}-{size:x}"')

    def _film(self, brief: VideoBrief) -> Film:
        with self._films_lock:
            film = self._films.get(brief.film_key)
        if film is None:
            film = Film(
                seconds=brief.seconds,
                caption=brief.caption,
                picture=self._pictures.open(brief.picture) if brief.picture else None,
                aspect_ratio=brief.aspect_ratio,
            )
        with self._films_lock:
            self._films[brief.film_key] = film
            self._films.move_to_end(brief.film_key)
            while len(self._films) > _MAX_FILMS:
                self._films.popitem(last=False)
        return film


def _pad(path: Path, size: int) -> None:
    """Lengthen an MP4 by a ``free`` box, which players skip. The file is sparse where it can be."""
    missing = size - path.stat().st_size
    head = 16
    if missing < head:
        return
    with path.open("r+b") as file:
        file.seek(0, 2)
        file.write(struct.pack(">I4sQ", 1, b"free", missing))
        file.truncate(size)
