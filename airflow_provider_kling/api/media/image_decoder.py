"""Decodes one picture, in a process of its own whose memory and time are limited.

:mod:`airflow_provider_kling.api.media.image` runs this file as a script: the picture is its standard
input, what it makes its standard output, both plain files, and its last line on standard error says
what came of it, as JSON.

It imports nothing of the package, as each worker starts it in a process of its own.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any, BinaryIO, Final

MOST_MEMORY: Final = 1024 * 1024 * 1024
"""Bytes of address space; Python and its libraries take about a fifth of it."""
MOST_CPU: Final = 30  # seconds
MOST_DECODED: Final = 160 * 1024 * 1024
"""Bytes of decoded pixels: 55 million pixels in colour. What turns a picture needs them twice."""
MOST_PROGRESSIVE: Final = 64_000_000
"""Pixels of a progressive JPEG, which a decoder holds all at once at 6 bytes, however small it draws it."""

FORMATS: Final = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "TIFF", "BMP")
_HEIC_BRANDS: Final = (b"heic", b"heix", b"heim", b"hevc", b"mif1", b"msf1")
_QUALITY: Final = 95
_MISSING_END: Final = (b"\xff\xd9", bytes(range(1, 255)) * 32 + b"\xff\xd9")


class RefusedError(Exception):
    """The picture cannot be decoded; the message says why, in words that follow its name."""


def turn(source: BinaryIO, target: BinaryIO, most_bytes: int) -> dict[str, Any]:
    """Write a JPEG or PNG turned as its EXIF orientation asks, in its own format."""
    from PIL import ImageOps, JpegImagePlugin

    with _opened(source, ("JPEG", "PNG")) as image:
        kind = "PNG" if image.format == "PNG" else "JPEG"
        options: dict[str, Any] = {"icc_profile": image.info.get("icc_profile")}
        if kind == "JPEG":
            sampling = JpegImagePlugin.get_sampling(image)
            options |= {"quality": _QUALITY, "subsampling": sampling}
        _shrink(image)
        upright = ImageOps.exif_transpose(image)
        upright.save(target, format=kind, **options)
        return _said(kind, upright)


def convert(source: BinaryIO, target: BinaryIO, most_bytes: int) -> dict[str, Any]:
    """Write any picture as the vendor takes it: JPEG, or PNG where something shows through."""
    from PIL import ImageOps

    with _opened(source, FORMATS) as image:
        before = {"source": image.format, "source_width": image.width, "source_height": image.height}
        _shrink(image)
        upright = ImageOps.exif_transpose(image)
    profile = upright.info.get("icc_profile") if upright.mode in ("RGB", "RGBA", "L") else None
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        alpha = upright.getchannel("A").getextrema()
        kind = "PNG" if alpha[0] != 255 else "JPEG"
    else:
        kind = "JPEG"
    if kind == "JPEG" and upright.mode not in ("RGB", "L"):
        upright = upright.convert("RGB")
    while True:
        target.seek(0)
        target.truncate()
        options: dict[str, Any] = {"quality": _QUALITY} if kind == "JPEG" else {}
        upright.save(target, format=kind, icc_profile=profile, **options)
        target.flush()
        if os.fstat(target.fileno()).st_size <= most_bytes:
            return before | _said(kind, upright)
        upright = upright.reduce(2)


def is_complete(source: BinaryIO, target: BinaryIO, most_bytes: int) -> dict[str, Any]:
    """Whether a JPEG without the marker of its end has all of its pixels.

    A decoder fills in pixels that are missing from whatever follows, so they differ with it.
    """
    import io

    from PIL import ImageChops

    content = source.read()
    drawn = []
    for end in _MISSING_END:
        with _opened(io.BytesIO(content + end), ("JPEG",)) as image:
            _shrink(image)
            image.load()
            drawn.append(image.copy())
    return {"complete": ImageChops.difference(*drawn).getbbox() is None}


def _unidentified() -> type[Exception]:
    from PIL import UnidentifiedImageError

    return UnidentifiedImageError


def _opened(source: BinaryIO, formats: tuple[str, ...]) -> Any:
    from PIL import Image

    if "HEIF" in formats:
        try:
            import pi_heif
        except ImportError:
            head = source.read(12)
            source.seek(0)
            if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
                raise RefusedError(
                    "is HEIC, which is read with: pip install 'airflow-provider-kling[heic]'"
                ) from None
        else:
            pi_heif.register_heif_opener()
    Image.MAX_IMAGE_PIXELS = None  # _shrink decides
    Image.init()  # formats that this Pillow lacks would be a KeyError: AVIF came with 11.3
    return Image.open(source, formats=[each for each in formats if each in Image.OPEN])


def _shrink(image: Any) -> None:
    """Have a JPEG decoded at a half, a quarter or an eighth where it would take too much memory.

    :raises RefusedError: it needs too much memory or time.
    """
    width, height = image.size
    pixels = f"has {width} x {height} pixels"
    if image.info.get("progressive") and width * height > MOST_PROGRESSIVE:
        raise RefusedError(
            f"{pixels} in a progressive JPEG; at most {MOST_PROGRESSIVE:,} of such are decoded here"
        )
    per_pixel = {"1": 1, "L": 1, "P": 1, "LA": 4, "RGB": 3, "I;16": 2}.get(image.mode, 4)
    scale = 1
    while (
        image.format in ("JPEG", "MPO")
        and image.width * image.height * per_pixel > MOST_DECODED
        and scale < 8
    ):
        scale *= 2
        image.draft(None, (max(1, width // scale), max(1, height // scale)))
    if image.width * image.height * per_pixel > MOST_DECODED:
        raise RefusedError(f"{pixels}; at most {MOST_DECODED // per_pixel:,} of this kind are decoded here")


def _said(kind: str, image: Any) -> dict[str, Any]:
    return {"format": kind, "width": image.width, "height": image.height}


JOBS: Final = {job.__name__: job for job in (turn, convert, is_complete)}


def main(job: str, most_bytes: str) -> int:
    """Do one job; returns the exit code, 0 where it was done and 1 where the picture does not allow it."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU, MOST_CPU))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open(0, "rb", closefd=False) as source, open(1, "r+b", closefd=False) as target:
            source.seek(0)
            result = JOBS[job](source, target, int(most_bytes))
    except RefusedError as error:
        result = {"refused": str(error)}
    except MemoryError:
        result = {"refused": f"takes more than {MOST_MEMORY // 1024**2} MiB of memory to decode"}
    except _unidentified():
        result = {"refused": "is no picture of a kind that can be opened here"}
    except Exception as error:  # Pillow's readers raise what they like on damaged files
        result = {"refused": f"cannot be decoded ({type(error).__name__}: {error})"[:300]}
    print(json.dumps(result), file=sys.stderr, flush=True)
    return int("refused" in result)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
