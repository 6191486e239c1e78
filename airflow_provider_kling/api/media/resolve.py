"""Media of a request: what the user points to becomes what the API accepts, before any spending."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

from airflow_provider_kling.api.catalog.parameter import MediaKind, MediaPlace
from airflow_provider_kling.api.catalog.problems import listed
from airflow_provider_kling.api.catalog.validation import map_media
from airflow_provider_kling.api.download.mp4_boxes import Mp4Error, has_sound, read_mp4
from airflow_provider_kling.api.exceptions import InvalidRequestError
from airflow_provider_kling.api.media import audio, image
from airflow_provider_kling.api.media.file_types import HEAD, content_of
from airflow_provider_kling.api.media.orientation import write_upright
from airflow_provider_kling.api.media.picture import PictureError
from airflow_provider_kling.api.media.sources import Found, OpenPath, UnusableError, opened
from airflow_provider_kling.api.paths import StoragePath, scheme_of
from airflow_provider_kling.api.redaction import clean, logger, unsigned
from airflow_provider_kling.api.temporary_files import scratch_file
from airflow_provider_kling.api.transport.body import DataUri

log = logger(__name__)

_MB: Final = 1024 * 1024
_MOST_CONVERTED: Final = 200 * _MB
"""Bytes of a picture that is to be converted."""
_CONVERTIBLE: Final = ("WebP", "AVIF", "HEIC", "GIF", "TIFF", "BMP")


@dataclass(frozen=True, slots=True)
class _Allowed:
    """What the API takes for a kind of media.

    :param most_bytes: of the file, before base64.
    :param types: MIME type by the name that :func:`content_of` gives.
    """

    most_bytes: int
    types: Mapping[str, str]


_PICTURES: Final = _Allowed(50 * _MB, {"JPEG": "image/jpeg", "PNG": "image/png"})
_ALLOWED: Final[Mapping[MediaKind, _Allowed]] = {
    "image": _PICTURES,
    "mask": _PICTURES,
    "audio": _Allowed(
        5 * _MB,
        {
            "MP3": "audio/mpeg",
            "WAV": "audio/wav",
            "M4A": "audio/mp4",
            "MP4": "audio/mp4",  # what some tools write as the brand of an .m4a
            "AAC": "audio/aac",
        },
    ),
    # ours, as none is documented: base64 and JSON carry a third more. A URL has no limit.
    "video": _Allowed(100 * _MB, {"MP4": "video/mp4", "QuickTime": "video/quicktime"}),
}

_in_use: weakref.WeakValueDictionary[tuple[str, str], DataUri] = weakref.WeakValueDictionary()
"""By type and checksum: variants that show the same picture share one copy of it."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """One media value, ready to send.

    :param sent: what the API gets: a URL, or the content as a data URI. Never logged, and kept out
        of ``repr``.
    :param sha256: hexadecimal, of the content as it was found; of a URL, which is not read, its
        text without the signature.
    :param source: what a message or a log may call it.
    :param size: bytes of the content as it was found; None for a URL.
    """

    sent: str | DataUri = field(repr=False)
    sha256: str
    source: str
    size: int | None


def resolve(
    place: MediaPlace,
    value: str | os.PathLike[str] | StoragePath,
    *,
    open_path: OpenPath,
    sign_seconds: int | None = None,
    convert: bool = False,
) -> Resolved:
    """Turn one media value into what the API accepts.

    An http(s) URL is passed on. A local path, a ``file://`` URI, a URI of object storage and a
    data URI are copied to a temporary file, checked and sent from there as a data URI: type by
    content and structure, bytes, and that it is complete; for images also side lengths and aspect
    ratio, and a picture that EXIF turns arrives upright. Otherwise the bytes are sent as they are, but
    for what strict readers of a picture would stumble over.

    Base64 without ``data:`` in front is refused: it could be a file's name, and nothing that
    keeps pictures out of logs would recognise it.

    :param place: where the value stands, and what it is.
    :param open_path: opens the URI of an object storage.
    :param sign_seconds: send a URL signed for so many seconds instead of the bytes where the
        storage can sign; the content is checked as well. None sends the bytes.
    :param convert: make a JPEG or PNG of an image that the vendor does not take as it is: of another
        format, or too large. The checksum stays that of the content as it was found.
    :raises InvalidRequestError: naming the parameter, the file, what was found and what is allowed.
    :raises KlingError: the storage did not answer; a retry may help.
    """
    if isinstance(value, str):
        value = value.strip()
        if scheme_of(value) in ("http", "https"):
            scheme, _, address = value.partition("://")
            return _passed_on(place, f"{scheme.lower()}://{address}")
    allowed = _ALLOWED[place.kind]
    converts = convert and place.kind == "image"
    try:
        with (
            opened(value, open_path, _MOST_CONVERTED if converts else allowed.most_bytes) as found,
            ExitStack() as scratch,
        ):
            if allowed is _PICTURES:
                mime, file = _picture(place, found, scratch, converts)
            else:
                mime, file = _sound_or_video(found, allowed), found.file
            signed = found.signed_url(sign_seconds) if file is found.file and sign_seconds else None
            found.file.seek(0)
            sha256 = hashlib.file_digest(found.file, "sha256").hexdigest()
            inline = DataUri(mime, file)
            return Resolved(
                sent=signed or _in_use.setdefault((mime, sha256), inline),
                sha256=sha256,
                source=found.name,
                size=found.file.seek(0, os.SEEK_END),
            )
    except UnusableError as error:
        smaller = error.too_large and place.kind == "image" and not convert
        advice = "; convert_image=True makes a smaller one" if smaller else ""
        raise _refusal(place, [f"{error}{advice}"]) from error


def resolve_all(
    model_id: str,
    parameters: Mapping[str, Any],
    *,
    open_path: OpenPath,
    sign_seconds: int | None = None,
    convert: bool = False,
) -> tuple[dict[str, Any], dict[str, Resolved]]:
    """Resolve every media value of a request, also nested ones.

    :return: the parameters to send, and what was resolved by its place, for example
        ``elements[0].frontal_image_url``.
    :raises InvalidRequestError: naming every problem at once.
    :raises KlingError: a storage did not answer; a retry may help.
    """
    resolved: dict[str, Resolved] = {}
    problems: list[str] = []

    def fetch(place: MediaPlace, value: str) -> str | DataUri:
        try:
            one = resolve(place, value, open_path=open_path, sign_seconds=sign_seconds, convert=convert)
        except InvalidRequestError as error:
            problems.extend(error.problems)
            return ""
        resolved[place.path] = one
        return one.sent

    sent = map_media(model_id, parameters, fetch)
    if problems:
        raise InvalidRequestError(" ".join(problems), problems=problems)
    return sent, resolved


def _passed_on(place: MediaPlace, url: str) -> Resolved:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host or any(map(str.isspace, url)):
        raise _refusal(place, [f"{clean(url)} is not a URL"])
    sha256 = hashlib.sha256(unsigned(url).encode()).hexdigest()
    return Resolved(sent=url, sha256=sha256, source=clean(url), size=None)


def _picture(place: MediaPlace, found: Found, scratch: ExitStack, convert: bool) -> tuple[str, BinaryIO]:
    """The MIME type of a picture, and the file to send: the one that was found, or one made from it."""

    def new_file() -> BinaryIO:
        return scratch.enter_context(scratch_file())

    file: BinaryIO = found.file
    content, most = content_of(file.read(HEAD)), _PICTURES.most_bytes
    size = file.seek(0, os.SEEK_END)
    try:
        if convert and (content not in _PICTURES.types or size > most or image.is_too_large(file)):
            file = new_file()
            log.info(
                "%s: %s is converted %s.",
                place.path,
                found.name,
                image.write_converted(found.file, file, most),
            )
        elif content not in _PICTURES.types:
            able = place.kind == "image" and content in _CONVERTIBLE
            raise _other_content(found, content, _PICTURES, "; convert_image=True makes one" if able else "")
        seen = image.inspect(file)
        problems = image.documented_limits(seen) if place.kind == "image" else []
        if problems:
            raise _refusal(place, [f"{found.name} {problem}" for problem in problems])
        if seen.oddities:
            log.warning(
                "%s: %s opens in viewers, though its %s; sending it without that fault.",
                place.path,
                found.name,
                ", its ".join(seen.oddities),
            )
            odd, file = file, new_file()
            image.write_mended(seen, odd, file)
        if not seen.upright:
            turned_by_exif, file = file, new_file()
            write_upright(turned_by_exif, file)
    except PictureError as error:
        raise UnusableError(found.name, str(error)) from error
    size = file.seek(0, os.SEEK_END)
    if size > most:
        raise UnusableError(
            found.name, f"is {size:,} bytes after applying its EXIF rotation, over the limit of {most:,}"
        )
    return _PICTURES.types[seen.format], file


def _sound_or_video(found: Found, allowed: _Allowed) -> str:
    """The MIME type of a sound or a video, whose structure is checked."""
    content = content_of(found.file.read(HEAD))
    if content not in allowed.types:
        raise _other_content(found, content, allowed)
    try:
        if allowed is _ALLOWED["video"]:
            read_mp4(found.file)
            there = True
        elif content == "WAV":
            there = audio.is_wave(found.file)
        elif content in ("MP3", "AAC"):
            there = audio.has_frames(found.file, content)
        else:
            there = has_sound(found.file)
    except Mp4Error as error:
        raise UnusableError(found.name, str(error)) from error
    if not there:
        raise UnusableError(found.name, f"begins like {content}, and has no sound in it")
    return allowed.types[content]


def _other_content(found: Found, content: str, allowed: _Allowed, hint: str = "") -> UnusableError:
    return UnusableError(
        found.name,
        f"is {content}, whatever its name says; allowed is {listed(allowed.types)}{hint}",
    )


def _refusal(place: MediaPlace, problems: Sequence[str]) -> InvalidRequestError:
    sentences = [f"{place.path}: {problem}." for problem in problems]
    return InvalidRequestError(" ".join(sentences), problems=sentences)
