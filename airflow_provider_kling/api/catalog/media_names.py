"""Media among the parameters of a model that is not in the catalogue, found by their names and values.

Kling's own API and its newer models name media ``image``, ``start_image``, ``image_tail``, ``keyframes``,
``videos``, ``mask`` and so on, with and without ``_url``. What is taken for a medium by mistake is refused
before anything is paid, with its name; what is taken for text by mistake would go to the vendor as a path
that it cannot read, or stand in a log with its whole content. So in doubt it is a medium.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from airflow_provider_kling.api.catalog.parameter import Fetch, MediaKind
from airflow_provider_kling.api.catalog.parameter_types import Media
from airflow_provider_kling.api.paths import scheme_of

_NOUNS: Final[dict[str, MediaKind]] = {
    **dict.fromkeys(("image", "img", "picture", "photo", "frame", "keyframe", "tail"), "image"),
    "mask": "mask",
    **dict.fromkeys(("video", "clip"), "video"),
    **dict.fromkeys(("audio", "sound", "voice"), "audio"),
}
_FORMS: Final = frozenset({"url", "uri", "list", "file", "path", "data", "base64", "b64"})
"""Words behind the noun that say how the medium is given."""
_POSITIONS: Final = frozenset({"tail", "start", "end", "first", "last", "head", "reference", "ref", "input"})
_WORD = re.compile(r"[a-z]+|[0-9]+")
_CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_OPTION = re.compile(r"[A-Za-z0-9_-]{1,20}")
_MIME_KINDS: Final[dict[str, MediaKind]] = {"image": "image", "video": "video", "audio": "audio"}
_SUFFIXES: Final[dict[str, MediaKind]] = {
    **dict.fromkeys(
        (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif"),
        "image",
    ),
    **dict.fromkeys((".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi"), "video"),
    **dict.fromkeys((".mp3", ".wav", ".m4a", ".aac", ".ogg", ".flac"), "audio"),
}


def map_unknown(parameters: Mapping[str, Any], fetch: Fetch) -> dict[str, Any]:
    """The parameters with each medium replaced.

    :param fetch: see :func:`.map_media`.
    """
    return {name: _mapped(value, name, str(name), None, fetch) for name, value in parameters.items()}


def kind_by_name(name: str) -> MediaKind | None:
    """What a parameter of this name holds; None where the name tells of no medium.

    ``image_url``, ``start_image``, ``imageTail``, ``key_frames`` and ``audio_urls`` hold media;
    ``image_count``, ``video_length`` and ``frame_rate`` do not.
    """
    words = [word.removesuffix("s") for word in _WORD.findall(_CAMEL_CASE.sub("_", name).lower())]
    words = [word for word in words if not word.isdigit()]
    while words and words[-1] in _FORMS:
        words.pop()
    while len(words) > 1 and words[-1] in _POSITIONS:
        words.pop()
    return _NOUNS.get(words[-1]) if words and words[0] not in ("generate", "keep", "with", "enable") else None


def _mapped(value: Any, name: str, path: str, around: MediaKind | None, fetch: Fetch) -> Any:
    """The value with its media replaced.

    :param around: what the list or object holds that it is in.
    """
    kind = kind_by_name(name) or around
    match value:
        case Mapping():
            return {
                key: _mapped(each, str(key), f"{path}.{key}", kind if key in _FORMS else None, fetch)
                for key, each in value.items()
            }
        case list() | tuple():
            return [_mapped(each, name, f"{path}[{i}]", around, fetch) for i, each in enumerate(value)]
        case str():
            kind = _kind_by_value(value, kind)
        case _ if callable(getattr(value, "as_uri", None)):  # a path object is a medium under any name
            kind = kind or _SUFFIXES.get(Path(str(value)).suffix.lower(), "image")
        case _:
            return value
    return value if kind is None else Media(kind).map_media(value, path, fetch)


def _kind_by_value(value: str, kind: MediaKind | None) -> MediaKind | None:
    text = value.strip()
    scheme = scheme_of(text[:200])
    if scheme == "data":
        described = text[5:100].lower()
        return next(
            (each for each in ("image", "video", "audio") if described.startswith(each)), kind or "image"
        )
    if kind is not None:
        # "auto" or "on" for a sound is an option, as long as there is no such file
        option = kind != "image" and _OPTION.fullmatch(text) and not os.path.exists(text)
        return None if option or not text else kind
    if scheme in ("http", "https") or any(map(str.isspace, text)) or len(text) > 1000:
        return None  # a URL elsewhere is the vendor's to read, and text is text
    local = text.startswith(("/", "~/", "./", "../", "$")) or bool(scheme)
    return _SUFFIXES.get(os.path.splitext(text)[1].lower()) if local or os.path.isfile(text) else None
