"""The client library: the vendor's API, usable from any Python program, without Airflow.

Everything public is importable from here, and ``__all__`` lists it. What it does not list is private:
it may change in any release, whatever the name of its module. Names are loaded on first use (PEP 562),
so that importing this package costs nothing::

    from airflow_provider_kling.api import GenerationRequest, KlingClient, Settings

    request = GenerationRequest(
        "kling-video/v1.6/standard/image-to-video",
        {"prompt": "Steam rises.", "image_url": "https://example.com/mug.jpg"},
    )
    with KlingClient(Settings(api_key="...")) as client:
        generation = client.submit(request)  # costs money when the generation completes
        generation = client.wait(generation.id, timeout=1800)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_kling.api.async_client import AsyncKlingClient
    from airflow_provider_kling.api.billing.price_list import Estimate
    from airflow_provider_kling.api.catalog.models import MODELS, Model, find_model
    from airflow_provider_kling.api.catalog.validation import validate
    from airflow_provider_kling.api.client import KlingClient
    from airflow_provider_kling.api.download.mp4_boxes import VideoFacts, read_mp4
    from airflow_provider_kling.api.download.save_video import SavedVideo
    from airflow_provider_kling.api.exceptions import (
        ApiError,
        AuthenticationError,
        BadRequestError,
        BudgetError,
        ConfigurationError,
        ConnectionLostError,
        DownloadError,
        GatewayError,
        GenerationFailedError,
        GenerationTimeoutError,
        InsufficientBalanceError,
        InvalidRequestError,
        KlingError,
        MalformedReplyError,
        Money,
        NotFoundError,
        RateLimitError,
        Recovery,
        ServiceUnavailableError,
        StoppedError,
        SubmitUncertainError,
        UnusableRecordError,
    )
    from airflow_provider_kling.api.generation import Failure, Generation, GenerationRequest, GenerationStatus
    from airflow_provider_kling.api.polling.schedule import Schedule
    from airflow_provider_kling.api.settings import Settings
    from airflow_provider_kling.api.transport.rate_limiter import Limiter
    from airflow_provider_kling.api.transport.shared_rate_limiter import limiter_for

__all__ = [
    "MODELS",
    "ApiError",
    "AsyncKlingClient",
    "AuthenticationError",
    "BadRequestError",
    "BudgetError",
    "ConfigurationError",
    "ConnectionLostError",
    "DownloadError",
    "Estimate",
    "Failure",
    "GatewayError",
    "Generation",
    "GenerationFailedError",
    "GenerationRequest",
    "GenerationStatus",
    "GenerationTimeoutError",
    "InsufficientBalanceError",
    "InvalidRequestError",
    "KlingClient",
    "KlingError",
    "Limiter",
    "MalformedReplyError",
    "Model",
    "Money",
    "NotFoundError",
    "RateLimitError",
    "Recovery",
    "SavedVideo",
    "Schedule",
    "ServiceUnavailableError",
    "Settings",
    "StoppedError",
    "SubmitUncertainError",
    "UnusableRecordError",
    "VideoFacts",
    "find_model",
    "limiter_for",
    "read_mp4",
    "validate",
]

_HOMES = {
    "AsyncKlingClient": "async_client",
    "Estimate": "billing.price_list",
    "MODELS": "catalog.models",
    "Model": "catalog.models",
    "find_model": "catalog.models",
    "validate": "catalog.validation",
    "KlingClient": "client",
    "VideoFacts": "download.mp4_boxes",
    "read_mp4": "download.mp4_boxes",
    "SavedVideo": "download.save_video",
    "ApiError": "exceptions",
    "AuthenticationError": "exceptions",
    "BadRequestError": "exceptions",
    "ConfigurationError": "exceptions",
    "ConnectionLostError": "exceptions",
    "DownloadError": "exceptions",
    "GatewayError": "exceptions",
    "GenerationFailedError": "exceptions",
    "GenerationTimeoutError": "exceptions",
    "InsufficientBalanceError": "exceptions",
    "InvalidRequestError": "exceptions",
    "KlingError": "exceptions",
    "MalformedReplyError": "exceptions",
    "Money": "exceptions",
    "NotFoundError": "exceptions",
    "RateLimitError": "exceptions",
    "Recovery": "exceptions",
    "BudgetError": "exceptions",
    "UnusableRecordError": "exceptions",
    "StoppedError": "exceptions",
    "ServiceUnavailableError": "exceptions",
    "SubmitUncertainError": "exceptions",
    "Failure": "generation",
    "Generation": "generation",
    "GenerationRequest": "generation",
    "GenerationStatus": "generation",
    "Schedule": "polling.schedule",
    "Settings": "settings",
    "Limiter": "transport.rate_limiter",
    "limiter_for": "transport.shared_rate_limiter",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
