"""The JSON of a generation: as documented, as published, or as older answers have it."""

from __future__ import annotations

from typing import Any

from airflow_provider_kling.emulator.options import AnswerStyle, EmulatorOptions, ErrorShape
from airflow_provider_kling.emulator.rendering.video_store import VideoFile
from airflow_provider_kling.emulator.state import Stage, StoredGeneration
from airflow_provider_kling.emulator.vendor import failure_body, name_elsewhere

# Met in the wild on the same API, each documented status under several names.
_OLD_WORDS = {
    Stage.QUEUED: ("waiting", "queued"),
    Stage.GENERATING: ("active", "processing"),
    Stage.COMPLETED: ("succeeded", "completed"),
    Stage.ERROR: ("failed", "error"),
}


def generation_body(
    generation: StoredGeneration,
    options: EmulatorOptions,
    stage: Stage,
    url: str | None = None,
    file: VideoFile | None = None,
) -> dict[str, Any]:
    """The JSON object of a generation.

    :param stage: its status.
    :param url: of its video, when it is completed.
    :param file: the video, where the vendor states its size.
    """
    old = options.answers is AnswerStyle.OLD
    # Every other generation has its absent keys as nulls, and the other word for its status.
    nulls = generation.number % 2
    usual = _OLD_WORDS[stage][nulls] if old else str(stage)
    word = generation.directives.words.get(stage) or options.words().get(stage) or usual
    body: dict[str, Any] = {"id": generation.id, "status": word}
    if old and nulls:
        body |= {"video": None, "error": None, "duration": None, "meta": None}
    if url is not None:
        body["video"] = {"url": url}
        if file is not None:
            body["video"] |= {
                "content_type": "video/mp4",
                "file_name": "output.mp4",
                "file_size": file.size,
            }
        if options.answers is AnswerStyle.DOCUMENTED:
            body["video"]["duration"] = generation.seconds
        elif old:
            body["duration"] = generation.seconds
    if stage is Stage.ERROR:
        body["error"] = _error(generation, options)
    elif options.answers is not AnswerStyle.PUBLISHED:
        unit = "tokens_used" if old else "credits_used"
        body["meta"] = {"usage": {unit: generation.price.credits}}
    return body


def _error(generation: StoredGeneration, options: EmulatorOptions) -> Any:
    shape = generation.directives.error_shape or options.errors
    if shape is None and options.answers is AnswerStyle.OLD:
        shape = ErrorShape.TEXT
    if shape is None and name_elsewhere(generation.model) is not None:
        shape = ErrorShape.DETAIL
    failure = generation.failure()
    if failure is None:
        return None
    value = generation.parameters.get(failure.parameter)
    return failure_body(
        shape or ErrorShape.DOCUMENTED, failure.name, failure.message, failure.parameter, value
    )
