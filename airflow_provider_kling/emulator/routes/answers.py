"""How a generation is told: the documented shape, and older ones."""

from __future__ import annotations

from typing import Any

from airflow_provider_kling.emulator.options import AnswerStyle
from airflow_provider_kling.emulator.state import Stage, StoredGeneration

# Met in the wild on the same API, each documented status under several names.
_OLD_WORDS = {
    Stage.QUEUED: ("waiting", "queued"),
    Stage.GENERATING: ("active", "processing"),
    Stage.COMPLETED: ("succeeded", "completed"),
    Stage.ERROR: ("failed", "error"),
}


def generation_body(
    generation: StoredGeneration, style: AnswerStyle, stage: Stage, url: str | None
) -> dict[str, Any]:
    """The JSON object of a generation.

    :param stage: where it stands.
    :param url: of its video, when it is completed.
    """
    if style is AnswerStyle.OLD:
        return _old(generation, stage, url)
    body: dict[str, Any] = {"id": generation.id, "status": str(stage)}
    if url is not None:
        body["video"] = {"url": url, "duration": generation.seconds}
    if stage is Stage.ERROR:
        name, message = generation.failure() or ("", "")
        body["error"] = {"name": name, "message": message}
    else:
        body["meta"] = {"usage": {"credits_used": generation.price.credits}}
    return body


def _old(generation: StoredGeneration, stage: Stage, url: str | None) -> dict[str, Any]:
    # Every other generation has its absent keys as nulls, and the other word for its status.
    nulls = generation.number % 2
    body: dict[str, Any] = {"id": generation.id, "status": _OLD_WORDS[stage][nulls]}
    if nulls:
        body |= {"video": None, "error": None, "duration": None, "meta": None}
    if url is not None:
        body["video"] = {"url": url}
        body["duration"] = generation.seconds
    if stage is Stage.ERROR:
        body["error"] = (generation.failure() or ("", ""))[1]
    else:
        body["meta"] = {"usage": {"tokens_used": generation.price.credits}}
    return body
