"""The emulator's price list.

The figures are invented: plausible in size, in the vendor's two forms, and not what the vendor
asks. Everything that costs at the emulator costs what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_kling.api.catalog.models import MODELS
from airflow_provider_kling.emulator.vendor import CREDITS_PER_USD

DEFAULT_SECONDS = 5
"""Length of a video whose request names none, in seconds; the vendor's default."""

LONGEST_SECONDS = 60
"""Length of the longest video that is rendered, in seconds."""

# First matching part of the model id -> USD a second, as rendered silent and with sound.
_SECOND: tuple[tuple[str, float, float | None], ...] = (
    ("effects", 0.060, None),
    ("avatar-pro", 0.120, None),
    ("avatar-standard", 0.060, None),
    ("v1/standard", 0.030, None),
    ("v1/pro", 0.100, None),
    ("v1.5/standard", 0.050, None),
    ("v1.6/standard", 0.058, None),
    ("v1.5/pro", 0.100, None),
    ("v1.6/pro", 0.102, None),
    ("v2.1/standard", 0.058, None),
    ("v2.1/pro", 0.102, None),
    ("v2-master", 0.290, None),
    ("v2.1-master", 0.290, None),
    ("v2.5-turbo", 0.072, None),
    ("motion-control", 0.110, None),
    ("v2-6-pro", 0.070, 0.140),
    ("v3-standard-turbo", 0.090, None),
    ("v3-turbo-pro", 0.130, None),
    ("omni-720p", 0.110, 0.160),
    ("omni-1080p", 0.150, 0.220),
    ("v3-standard", 0.110, 0.160),
    ("v3-pro", 0.150, 0.220),
    ("video-o1", 0.115, None),
)
_OTHERWISE = (0.100, None)


@dataclass(frozen=True, slots=True)
class Price:
    """What one generation costs.

    :param usd: in USD, rounded to a hundredth of a cent.
    """

    usd: float

    @property
    def credits(self) -> int:
        """The same in the vendor's credits."""
        return round(self.usd * CREDITS_PER_USD)


def pricing(model_id: str) -> dict[str, Any]:
    """The ``pricing`` object of a model in the catalogue's answer."""
    silent, sound = _rates(model_id)
    if sound is not None:
        return {
            "kind": "variants",
            "dimensions": ["generate_audio"],
            "variants": [
                {"when": {"generate_audio": False}, "price": silent, "unit": "second", "per": 1},
                {"when": {"generate_audio": True}, "price": sound, "unit": "second", "per": 1},
            ],
        }
    return {
        "kind": "fixed",
        "units": [{"name": "second", "measure": "video", "price": silent, "per": 1}],
    }


def price_of(model_id: str, parameters: Mapping[str, Any]) -> Price:
    """What a valid request costs when it completes."""
    silent, sound = _rates(model_id)
    with_sound = sound is not None and parameters.get("generate_audio", True)
    rate = sound if with_sound and sound is not None else silent
    return Price(round(rate * video_seconds(parameters), 4))


def video_seconds(parameters: Mapping[str, Any]) -> int:
    """The length of the video that a request asks for, in seconds; the usual one where it cannot be read.

    Only a request for an unknown model can hold a value that is no length.
    """
    try:
        seconds = int(parameters.get("duration") or DEFAULT_SECONDS)
    except (TypeError, ValueError, OverflowError):
        return DEFAULT_SECONDS
    return seconds if 0 < seconds <= LONGEST_SECONDS else DEFAULT_SECONDS


def catalogue() -> list[dict[str, Any]]:
    """All models as the vendor's catalogue lists them, with their pricing."""
    return [
        {
            "id": model_id,
            "aliases": [],
            "type": "video",
            "info": {"name": model_id.split("/", 1)[-1], "developer": "Kling AI"},
            "tags": [],
            "pricing": pricing(model_id),
        }
        for model_id in sorted(MODELS)
    ]


def _rates(model_id: str) -> tuple[float, float | None]:
    for part, silent, sound in _SECOND:
        if part in model_id:
            return silent, sound
    return _OTHERWISE
