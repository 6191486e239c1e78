"""One video over an unreliable connection: resumed where it broke, verified, in constant memory."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final, Protocol, TypeVar

from airflow_provider_kling.api.exceptions import ConnectionLostError, DownloadError, Recovery
from airflow_provider_kling.api.generation import Generation
from airflow_provider_kling.api.redaction import clean, logger
from airflow_provider_kling.api.retry import Clock, Random, RetryPolicy, parse_retry_after
from airflow_provider_kling.api.transport.messages import CONTENT_LENGTH, body_encoding, has_readable_length

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)")
_STATED_CHECKSUM = re.compile(r"\b(md5|sha-256)=:?([A-Za-z0-9+/]+=*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What the server says about the whole video before it sends it.

    :param size: bytes; None where it does not say.
    :param etag: a strong entity tag; None where there is none.
    :param checksums: hexadecimal digests by hashlib's name, as far as the server states any.
    """

    size: int | None = None
    etag: str | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)


def read_announced(status: int, headers: Mapping[str, str]) -> RemoteFile:
    """Read it from the headers of a 200, or of a 206 or 416, whose length is that of a part."""
    if status == 200:
        length = headers.get("content-length", "").strip()
        size = int(length) if CONTENT_LENGTH.fullmatch(length) else None
    else:
        total = _CONTENT_RANGE.match(headers.get("content-range", ""))
        size = int(total[2]) if total and total[2] != "*" else None
    etag = headers.get("etag", "").strip()
    return RemoteFile(
        size=size,
        etag=etag if len(etag) > 2 and etag.startswith('"') and etag.endswith('"') else None,
        checksums=_checksums(headers, whole=status == 200),
    )


def _checksums(headers: Mapping[str, str], *, whole: bool) -> dict[str, str]:
    """Digests of the whole video that a server states; ``Content-MD5`` is of the body at hand."""
    stated = [headers.get(name, "") for name in ("repr-digest", "digest", "x-goog-hash")]
    if whole and "content-md5" in headers:
        stated.append(f"md5={headers['content-md5']}")
    found = {}
    for name, text in _STATED_CHECKSUM.findall(",".join(stated)):
        algorithm = name.lower().replace("-", "")
        try:
            digest = base64.b64decode(text, validate=True)
        except binascii.Error:
            continue
        if len(digest) == new_digest(algorithm).digest_size:
            found[algorithm] = digest.hex()
    return found


def first_byte(headers: Mapping[str, str]) -> int | None:
    """Where the part starts that a 206 answer carries."""
    part = _CONTENT_RANGE.match(headers.get("content-range", ""))
    return int(part[1]) if part and part[1] else None


def new_digest(name: str) -> Any:
    """An object of hashlib by its name. It guards against accidents, not against attackers."""
    return hashlib.new(name, usedforsecurity=False)


log = logger(__name__)

CHUNK: Final = 1024 * 1024  # bytes read, hashed and written at a time

MOST_BYTES: Final = 2 * 1024**3
"""Bytes of a video that are written at most, whatever its server announces: 30 s, which no model exceeds, at
more than 500 Mbit/s, ten times what 4k needs. A body without end must not fill the disk."""

_T = TypeVar("_T")
_NOT_A_VIDEO = re.compile(r"(text|image)/|application/([\w.]+\+)?(json|xml|xhtml)", re.IGNORECASE)


class Reply(Protocol):
    """An answer whose body is still to be read. ``headers`` has names in lower case."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """All headers."""

    def chunks(self, size: int) -> Iterator[bytes]:
        """The body, ``size`` bytes or fewer at a time; raises ConnectionLostError."""


Fetch = Callable[[str, Mapping[str, str]], AbstractContextManager[Reply]]
"""Opens a URL with extra headers, follows redirects, sends no key. Raises ConnectionLostError."""


class _TroubleError(Exception):
    """An attempt failed, and another may not."""

    def __init__(self, reason: str, *, stale: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.stale = stale  # the URL: ask for a fresh one
        self.retry_after = retry_after


class VideoSource:
    """A generation's video at the vendor: behind a URL that expires and a connection that breaks.

    :param fetch: opens a URL.
    :param ask_vendor: asks the vendor for the completed generation, which costs nothing: its URL is
        fresh, and it may state the length of the video.
    :param retries: how often in a row an attempt may fail without a further MiB having arrived,
        and how long to wait in between.
    :param pause: how to wait.
    """

    def __init__(
        self,
        fetch: Fetch,
        ask_vendor: Callable[[], Generation],
        *,
        generation_id: str,
        retries: RetryPolicy,
        pause: Callable[[float], None],
        random: Random,
        now: Clock,
    ) -> None:
        self._fetch = fetch
        self._ask_vendor = ask_vendor
        self._generation_id = generation_id
        self._retries = retries
        self._pause = pause
        self._random = random
        self._now = now
        self._url = ""
        self._stated_size: int | None = None  # by the vendor
        self._is_size_disputed = False

    def remote(self) -> RemoteFile:
        """What the server says about the video; a byte of it is asked for.

        :raises DownloadError: nothing useful came after all attempts.
        """

        def ask() -> RemoteFile:
            with self._open({"Range": "bytes=0-0"}) as reply:
                announced = read_announced(reply.status, reply.headers)
            if announced.size is None:
                announced = replace(announced, size=self._stated_size)
            return announced

        return self._persist(ask, lambda: 0)

    def save(self, path: Path) -> str:
        """Write the video to a new file.

        :return: the SHA-256 of its content, hexadecimal.
        :raises DownloadError: it did not arrive whole after all attempts.
        :raises OSError: the file cannot be written.
        """
        with path.open("wb") as file, ThreadPoolExecutor(1, "kling-digest") as thread:
            copy = _Copy(file, thread)
            self._persist(lambda: self._fill(copy), lambda: copy.done)
            return copy.digest("sha256")

    def _fill(self, copy: _Copy) -> None:
        if not copy.is_complete:
            self._receive(copy)
        self._compare_with_stated_size(copy)
        for name, stated in copy.announced.checksums.items():
            if copy.digest(name) != stated:
                copy.restart()
                raise _TroubleError(f"what came has another {name} than the server states")

    def _compare_with_stated_size(self, copy: _Copy) -> None:
        """What came is as long as its server said. The vendor's answer states a length, too.

        Where the two differ twice, with a fresh URL in between, the video is kept if its structure is
        complete: it is paid for. Without a length of the server, the vendor's is the only one.
        """
        if self._stated_size in (None, copy.done):
            return
        if copy.announced.size is None or not self._is_size_disputed:
            self._is_size_disputed = True
            done = copy.done
            copy.restart()
            raise _TroubleError(
                f"{done} bytes came, and the vendor's answer states {self._stated_size}", stale=True
            )
        log.warning(
            "Video of generation %s has %d bytes, as its server says; the vendor's answer states %d. "
            "Keeping it if its structure is complete.",
            self._generation_id,
            copy.done,
            self._stated_size,
        )

    def _receive(self, copy: _Copy) -> None:
        etag = copy.announced.etag
        resumed = bool(copy.done and etag)
        headers = {"Range": f"bytes={copy.done}-", "If-Range": etag} if resumed and etag else {}
        with self._open(headers) as reply:
            announced = read_announced(reply.status, reply.headers)
            if resumed and reply.status == 206:
                if (first_byte(reply.headers), announced.size, announced.etag or etag) != (
                    copy.done,
                    copy.announced.size,
                    etag,
                ):
                    copy.restart()
                    raise _TroubleError("the server continued with a different file")
            elif reply.status == 200:
                copy.restart(announced)
            else:
                copy.restart()
                raise _TroubleError(f"the server did not send the file from its start ({reply.status})")
            total = copy.announced.size
            if total is not None and total > MOST_BYTES:
                copy.restart()
                raise _TroubleError(f"the server announced {total} bytes, more than any video has")
            most = next(each for each in (total, self._stated_size, MOST_BYTES) if each is not None)
            for chunk in reply.chunks(CHUNK):
                if copy.done + len(chunk) > most:
                    copy.restart()
                    raise _TroubleError(f"more came than the {most} bytes that were announced")
                copy.add(chunk)
        if total is not None and copy.done < total:
            raise _TroubleError(f"the answer ended after {copy.done} of {total} bytes")

    @contextmanager
    def _open(self, headers: Mapping[str, str]) -> Iterator[Reply]:
        """Open the URL; give only an answer that carries a video's bytes."""
        with self._fetch(self._url, headers) as reply:
            status, kind = reply.status, reply.headers.get("content-type", "")
            if status in (408, 429) or status >= 500:
                retry_after = parse_retry_after(reply.headers.get("retry-after"), self._now())
                raise _TroubleError(f"its server answered {status}", retry_after=retry_after)
            if status not in (200, 206, 416):
                # 403, 404 and 410 are what an expired signature gets; a fresh URL is free
                raise _TroubleError(f"its server answered {status}", stale=True)
            if encoding := body_encoding(reply.headers):
                raise _TroubleError(f"its server sent it encoded with {clean(encoding[:100])!r}", stale=True)
            if not has_readable_length(reply.headers):
                raise _TroubleError("its server announced an impossible length", stale=True)
            if status != 416 and _NOT_A_VIDEO.match(kind):
                raise _TroubleError(f"its server sent {clean(kind[:100])!r} instead", stale=True)
            yield reply

    def _persist(self, attempt: Callable[[], _T], done: Callable[[], int]) -> _T:
        failures, furthest = 0, 0
        while True:
            # outside the try: asking the vendor has its own retries, and its own errors
            if not self._url:
                generation = self._ask_vendor()
                self._url, self._stated_size = generation.video_url or "", generation.video_size
            try:
                return attempt()
            except ConnectionLostError as lost:
                trouble = _TroubleError(clean(lost.what).rstrip("."))
                hopeless = lost.recovery is Recovery.GIVE_UP
            except _TroubleError as error:
                trouble, hopeless = error, False
            except DownloadError as error:  # the client's, which knows the URL and not whose it is
                raise DownloadError(
                    f"{error.what.rstrip('.')} (generation {self._generation_id}).",
                    advice=error.advice,
                    recovery=error.recovery,
                    generation_id=self._generation_id,
                ) from None
            if done() >= furthest + CHUNK:  # a long video may break off more often than a short one
                failures, furthest = 0, done()
            failures += 1
            if hopeless or failures >= self._retries.attempts:
                raise self._gave_up(trouble, failures, hopeless)
            if trouble.stale:
                self._url = ""
            # the first fresh URL needs no wait: an expired one says nothing of the server's health
            wait = 0.0
            if not trouble.stale or failures > 1:
                wait = self._retries.delay(failures, self._random, trouble.retry_after)
            log.warning(
                "The video of generation %s: %s. Retrying in %.1f s; %d bytes received so far.",
                self._generation_id,
                trouble,
                wait,
                done(),
            )
            if wait:
                self._pause(wait)

    def _gave_up(self, trouble: _TroubleError, failures: int, hopeless: bool) -> DownloadError:
        times = "" if failures == 1 else f" ({failures} attempts in a row)"
        return DownloadError(
            f"The video of generation {self._generation_id} did not arrive: {trouble}{times}.",
            advice="Fix the cause, then clear the task: it downloads the same generation."
            if hopeless
            else "Run the task again: it downloads the same generation from a fresh URL.",
            recovery=Recovery.GIVE_UP if hopeless else None,
            generation_id=self._generation_id,
        )


class _Copy:
    """The part of a video that is on the disk, with its running digests.

    :param thread: computes them while the next chunk arrives; one chunk at a time, so that memory
        stays constant.
    """

    def __init__(self, file: IO[bytes], thread: Executor) -> None:
        self._file = file
        self._thread = thread
        self._hashing: Future[None] | None = None
        self.restart()

    def restart(self, announced: RemoteFile | None = None) -> None:
        self._wait()
        self._file.seek(0)
        self._file.truncate()
        self.done = 0
        self.announced = announced or RemoteFile()
        names = {"sha256", *self.announced.checksums}
        self._digests: dict[str, Any] = {name: new_digest(name) for name in names}

    def add(self, chunk: bytes) -> None:
        self._wait()
        self._hashing = self._thread.submit(self._hash, chunk)
        self._file.write(chunk)
        self.done += len(chunk)

    def digest(self, name: str) -> str:
        """Hexadecimal, of all that was added."""
        self._wait()
        digest: str = self._digests[name].hexdigest()
        return digest

    def _hash(self, chunk: bytes) -> None:
        for digest in self._digests.values():
            digest.update(chunk)

    def _wait(self) -> None:
        if self._hashing is not None:
            self._hashing.result()
            self._hashing = None

    @property
    def is_complete(self) -> bool:
        return self.announced.size is not None and self.done == self.announced.size
