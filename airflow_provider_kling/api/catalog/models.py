"""The models: what each takes, as one table.

The facts are the vendor's documentation of August 2026. The vendor publishes models faster than
this package appears, so a model that is not here is no error: see
:func:`airflow_provider_kling.api.catalog.validation.inspect`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from airflow_provider_kling.api.catalog import parameter_sets
from airflow_provider_kling.api.catalog.parameter_sets import ParameterSet
from airflow_provider_kling.api.catalog.parameter_types import Parameter
from airflow_provider_kling.api.catalog.rules import Rule
from airflow_provider_kling.api.polling.schedule import USUAL_SECONDS, Schedule


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the vendor.

    :param id: the vendor's name for it.
    :param parameters: what it takes, by name.
    :param required: the parameters that have to be given.
    :param ignored: names that the vendor accepts without effect; they are not sent.
    :param rules: what several parameters have to be together.
    :param image_parameter: the one that holds the reference picture, or the list of them; None for
        models that take none.
    :param documented: False for models whose page the vendor has removed.
    :param usual_seconds: from submit to completed, usually: the vendor's published example where
        there is one, else :data:`USUAL_SECONDS`.
    """

    id: str
    parameters: Mapping[str, Parameter]
    required: frozenset[str]
    ignored: frozenset[str]
    rules: tuple[Rule, ...]
    image_parameter: str | None
    documented: bool
    usual_seconds: float

    @property
    def defaults(self) -> dict[str, Any]:
        """What the vendor assumes for parameters that are not given, where it documents it."""
        known = ((name, parameter.default) for name, parameter in self.parameters.items())
        return {name: default for name, default in known if default is not None}


def find_model(model_id: str) -> Model | None:
    """The model of that id; None for one that this version does not know."""
    return MODELS.get(model_id)


def _model(
    model_id: str, takes: ParameterSet, *, seconds: float = USUAL_SECONDS, documented: bool = True
) -> Model:
    parameters = {**takes.required, **takes.optional}
    return Model(
        id=model_id,
        parameters=MappingProxyType(parameters),
        required=frozenset(takes.required),
        ignored=takes.ignored,
        rules=takes.rules,
        image_parameter=next((n for n in _IMAGE_PARAMETERS if n in parameters), None),
        documented=documented,
        usual_seconds=seconds,
    )


_IMAGE_PARAMETERS = ("image_url", "image_list")

_TABLE = (
    _model("kling-video/v1/standard/image-to-video", parameter_sets.GUIDED_FRAMES, seconds=249),
    _model("kling-video/v1/standard/text-to-video", parameter_sets.GUIDED_TEXT, seconds=322),
    _model("kling-video/v1/pro/image-to-video", parameter_sets.GUIDED_FRAMES, seconds=204),
    _model("kling-video/v1/pro/text-to-video", parameter_sets.GUIDED_TEXT, seconds=78),
    _model("kling-video/v1.5/standard/image-to-video", parameter_sets.GUIDED_FRAMES, documented=False),
    _model("kling-video/v1.5/pro/image-to-video", parameter_sets.GUIDED_FRAMES, documented=False),
    _model("kling-video/v1.5/pro/text-to-video", parameter_sets.GUIDED_TEXT, documented=False),
    _model("kling-video/v1.6/standard/image-to-video", parameter_sets.PLAIN_IMAGE, seconds=122),
    _model("kling-video/v1.6/standard/multi-image-to-video", parameter_sets.SEVERAL_IMAGES, seconds=127),
    _model("kling-video/v1.6/standard/text-to-video", parameter_sets.PLAIN_TEXT, seconds=186),
    _model("kling-video/v1.6/pro/image-to-video", parameter_sets.GUIDED_FRAMES, seconds=186),
    _model("kling-video/v1.6/pro/text-to-video", parameter_sets.GUIDED_TEXT, seconds=186),
    _model("klingai/kling-video-v1.6-standard-effects", parameter_sets.EFFECT),
    _model("klingai/kling-video-v1.6-pro-effects", parameter_sets.EFFECT),
    _model("klingai/v2-master-image-to-video", parameter_sets.GUIDED_IMAGE_MASTER),
    _model("klingai/v2-master-text-to-video", parameter_sets.GUIDED_TEXT_MASTER),
    _model("kling-video/v2.1/standard/image-to-video", parameter_sets.GUIDED_IMAGE),
    _model("kling-video/v2.1/pro/image-to-video", parameter_sets.GUIDED_IMAGE),
    _model("klingai/v2.1-master-image-to-video", parameter_sets.GUIDED_IMAGE_MASTER),
    _model("klingai/v2.1-master-text-to-video", parameter_sets.GUIDED_TEXT_MASTER),
    _model("klingai/v2.5-turbo/pro/image-to-video", parameter_sets.PLAIN_IMAGE),
    _model("klingai/v2.5-turbo/pro/text-to-video", parameter_sets.PLAIN_TEXT),
    _model("klingai/video-o1-image-to-video", parameter_sets.O1_IMAGE, seconds=79),
    _model("klingai/video-o1-reference-to-video", parameter_sets.O1_REFERENCES, seconds=126),
    _model("klingai/video-o1-video-to-video-edit", parameter_sets.O1_VIDEO_EDIT, seconds=235),
    _model("klingai/video-o1-video-to-video-reference", parameter_sets.O1_VIDEO_REFERENCE, seconds=203),
    _model("klingai/avatar-standard", parameter_sets.AVATAR),
    _model("klingai/avatar-pro", parameter_sets.AVATAR),
    _model("klingai/video-v2-6-pro-image-to-video", parameter_sets.V26_IMAGE, seconds=110),
    _model("klingai/video-v2-6-pro-text-to-video", parameter_sets.V26_TEXT, seconds=152),
    _model("klingai/video-v2-6-motion-control", parameter_sets.MOTION_CONTROL, documented=False),
    _model("klingai/video-v2-6-pro-motion-control", parameter_sets.MOTION_CONTROL),
    _model("klingai/video-v3-standard-image-to-video", parameter_sets.V3_IMAGE, seconds=235),
    _model("klingai/video-v3-standard-text-to-video", parameter_sets.V3_TEXT, seconds=431),
    _model("klingai/video-v3-pro-image-to-video", parameter_sets.V3_IMAGE, seconds=401),
    _model("klingai/video-v3-pro-text-to-video", parameter_sets.V3_TEXT, seconds=381),
    _model("klingai/video-v3-omni-1080p-image-to-video", parameter_sets.V3_OMNI_IMAGE),
    _model("klingai/video-v3-omni-1080p-text-to-video", parameter_sets.V3_OMNI_TEXT),
    _model("klingai/video-v3-omni-720p-image-to-video", parameter_sets.V3_OMNI_IMAGE),
    _model("klingai/video-v3-omni-720p-text-to-video", parameter_sets.V3_OMNI_TEXT),
    _model("klingai/video-v3-standard-turbo-image-to-video", parameter_sets.V3_TURBO_IMAGE),
    _model("klingai/video-v3-standard-turbo-text-to-video", parameter_sets.V3_TURBO_TEXT),
    _model("klingai/video-v3-turbo-pro-image-to-video", parameter_sets.V3_TURBO_IMAGE),
    _model("klingai/video-v3-turbo-pro-text-to-video", parameter_sets.V3_TURBO_TEXT),
    _model("klingai/video-v3-motion-control", parameter_sets.MOTION_CONTROL),
)

MODELS: Final[Mapping[str, Model]] = MappingProxyType({model.id: model for model in _TABLE})
"""Every known model by its id."""


def schedule_for(poke_interval: float | None, model: str | None) -> Schedule:
    """When to poll: at the user's interval, or where completion is likely for the model.

    :raises ValueError: an interval that is not allowed.
    """
    if poke_interval is not None:
        return Schedule.fixed(poke_interval)
    known = find_model(model) if model else None
    return Schedule.adaptive(known.usual_seconds if known else None)
