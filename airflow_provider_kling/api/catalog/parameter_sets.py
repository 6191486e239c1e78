"""What models take: parameters that they share, and whole parameter sets.

Models that differ in nothing but version and quality share one set. A default is what the vendor
documents to assume; it is never sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from airflow_provider_kling.api.catalog.parameter_types import (
    Boolean,
    Choice,
    Integer,
    ListOf,
    Media,
    Number,
    ObjectOf,
    Parameter,
    Text,
)
from airflow_provider_kling.api.catalog.rules import (
    Rule,
    at_most_one_with,
    exactly_one,
    only_with,
    pictures_by_scene,
)

_ONE_SUBJECT = """
    angel_wing anime_figure bloombloom boss_coming boyfriend brown_bear_hug
    building_collapse car_explosion celebration construction_worker cry_cry dark_wing
    day_to_night dizzydizzy dollar_rain double_gun expansion fairy_wing felt_felt fly_fly
    fuzzyfuzzy girlfriend gun_shot heart_gesture_1 hula instant_film instant_kid
    iron_warrior jazz_jazz jelly_jiggle jelly_press jelly_slice jelly_squish jesus_hug
    jumpdrop let's_ride lie_flat lightning_power long_hair magic_broom magic_fireball
    marry_me media_interview mushroom office_escape_plow pet_bee pet_chef pet_dance
    pet_delivery pet_lion pet_moto_rider pet_warrior pet_wizard piggy_morph pixelpixel
    plushcut polar_bear_hug rocketrocket santa_gifts santa_hug shark_alert siblings
    skateskate ski_ski smoke_smoke snatched splashsplash squish surfsurf swing_swing
    thumbs_up tiger_hug watermelon_bomb wig_out wool_curly yearbook
""".split()  # noqa: SIM905 - a list of one name a line would be longer and say no more

PICTURES_BY_SCENE: Final[dict[str, tuple[int, ...]]] = {
    **dict.fromkeys(_ONE_SUBJECT, (1,)),
    "hug": (2,),
    "kiss": (2,),
    "heart_gesture": (2,),
    "fight": (1, 2),  # what the vendor documents does not say which
}


class ParameterSet(NamedTuple):
    """The parameters and rules of a group of models.

    :param required: the parameters that have to be given.
    :param optional: the others.
    :param rules: what several parameters have to be together.
    :param ignored: names that the vendor accepts without effect.
    """

    required: Mapping[str, Parameter]
    optional: Mapping[str, Parameter]
    rules: tuple[Rule, ...] = ()
    ignored: frozenset[str] = frozenset()

    def taking(self, **optional: Parameter) -> ParameterSet:
        """The same, with other or more optional parameters."""
        return self._replace(optional={**self.optional, **optional})


# Parameters that models share.

_TEXT = Text()
_TEXT_2500 = Text(max_length=2500)
_TEXT_3072 = Text(max_length=3072)
_IMAGE = Media("image")
_MASK = Media("mask")
_VIDEO = Media("video")
_AUDIO = Media("audio")
_CFG_SCALE = Number(minimum=0, maximum=1)
_PROVIDER = Choice(("kling", "klingai", "fal", "auto"), any_case=True)

_DURATION = Integer(choices=(5, 10), default=5)
_DURATION_WITHOUT_DEFAULT = Integer(choices=(5, 10))
_DURATION_V3 = Integer(minimum=3, maximum=15, default=5)

_ASPECT_RATIO = Choice(("16:9", "9:16", "1:1"), default="16:9")
_ASPECT_RATIO_WITHOUT_DEFAULT = Choice(_ASPECT_RATIO.names)
# The video takes the aspect ratio of the reference picture, whatever is asked for.
_RATIO_IGNORED = frozenset({"ratio", "aspect_ratio"})

_CAMERA_MOVE = Choice(("down_back", "forward_up", "right_turn_forward", "left_turn_forward"))
_CAMERA_AXES = ("horizontal", "vertical", "pan", "tilt", "roll", "zoom")
_CAMERA_MOVE_OR_CONFIG = ObjectOf(
    {
        "type": Choice(("simple", *_CAMERA_MOVE.names)),
        "config": ObjectOf(dict.fromkeys(_CAMERA_AXES, Number(minimum=-10, maximum=10))),
    }
)
_ONE_CAMERA_AXIS = ObjectOf(
    {"movement_type": Choice(_CAMERA_AXES), "movement_value": Integer(minimum=-10, maximum=10)},
    required=frozenset({"movement_type", "movement_value"}),
)
_POINT = ObjectOf({"x": Integer(), "y": Integer()}, required=frozenset({"x", "y"}))
_DYNAMIC_MASKS = ListOf(
    ObjectOf(
        {"mask": _MASK, "trajectories": ListOf(_POINT, min_items=2, max_items=77)},
        required=frozenset({"mask", "trajectories"}),
    ),
    max_items=6,
)

_ELEMENT = {
    "frontal_image_url": _IMAGE,
    "reference_image_urls": ListOf(_IMAGE, min_items=1, max_items=4),
}
_ELEMENTS = ListOf(ObjectOf(_ELEMENT, required=frozenset(_ELEMENT)), max_items=4)
_ELEMENTS_V3 = ListOf(
    ObjectOf({**_ELEMENT, "video_url": _VIDEO}, required=frozenset({"reference_image_urls"})),
    max_items=4,
)
_SHOTS = ListOf(
    ObjectOf(
        {"prompt": _TEXT_3072, "duration": Integer(minimum=1, maximum=15, default=5)},
        required=frozenset({"prompt"}),
    ),
    min_items=1,
    max_items=6,
    nullable=True,
)

_GUIDANCE = {"negative_prompt": _TEXT, "cfg_scale": _CFG_SCALE}
_CAMERA_AND_MASKS = {
    "camera_control": _CAMERA_MOVE_OR_CONFIG,
    "static_mask": _MASK,
    "dynamic_masks": _DYNAMIC_MASKS,
}
_CAMERA = {"camera_control": _CAMERA_MOVE, "advanced_camera_control": _ONE_CAMERA_AXIS}

# Shapes, from the oldest models to the newest.

GUIDED_IMAGE = ParameterSet(
    {"image_url": _IMAGE},
    {"prompt": _TEXT, **_GUIDANCE, **_CAMERA_AND_MASKS, "duration": _DURATION},
    ignored=_RATIO_IGNORED,
)
GUIDED_FRAMES = GUIDED_IMAGE.taking(tail_image_url=_IMAGE)
GUIDED_IMAGE_MASTER = GUIDED_IMAGE.taking(provider=_PROVIDER)
GUIDED_TEXT = ParameterSet(
    {"prompt": _TEXT},
    {
        **_GUIDANCE,
        **_CAMERA,
        "aspect_ratio": _ASPECT_RATIO,
        "duration": _DURATION_WITHOUT_DEFAULT,
    },
)
GUIDED_TEXT_MASTER = GUIDED_TEXT.taking(provider=_PROVIDER)
PLAIN_IMAGE = ParameterSet(
    {"image_url": _IMAGE, "prompt": _TEXT},
    {**_GUIDANCE, "duration": _DURATION, "provider": _PROVIDER},
    ignored=_RATIO_IGNORED,
)
PLAIN_TEXT = ParameterSet(
    {"prompt": _TEXT},
    {
        **_GUIDANCE,
        "aspect_ratio": _ASPECT_RATIO_WITHOUT_DEFAULT,
        "duration": _DURATION,
        "provider": _PROVIDER,
    },
)
SEVERAL_IMAGES = ParameterSet(
    {"image_list": ListOf(_IMAGE, min_items=2, max_items=4)},
    {
        "prompt": _TEXT,
        "negative_prompt": _TEXT,
        "aspect_ratio": _ASPECT_RATIO,
        "duration": _DURATION,
    },
)
EFFECT = ParameterSet(
    {
        "image_url": ListOf(_IMAGE, or_one=True),
        "effect_scene": Choice(tuple(PICTURES_BY_SCENE)),
    },
    {"duration": _DURATION},
    (pictures_by_scene("effect_scene", "image_url", PICTURES_BY_SCENE),),
)
AVATAR = ParameterSet(
    {"image_url": _IMAGE, "audio_url": _AUDIO},
    {"prompt": _TEXT_2500, "provider": _PROVIDER},
)
MOTION_CONTROL = ParameterSet(
    {"image_url": _IMAGE, "video_url": _VIDEO},
    {
        "prompt": _TEXT,
        "character_orientation": Choice(("image", "video"), default="video"),
        "keep_audio": Boolean(default=True),
        "mode": Choice(("std", "pro"), default="std"),
    },
)
O1_IMAGE = ParameterSet(
    {"image_url": _IMAGE, "prompt": _TEXT_2500},
    {"last_image_url": _IMAGE, "duration": _DURATION, "provider": _PROVIDER},
    ignored=_RATIO_IGNORED,
)
O1_REFERENCES = ParameterSet(
    {"prompt": _TEXT_2500},
    {
        "image_list": ListOf(_IMAGE, min_items=1, max_items=7),
        "elements": _ELEMENTS,
        "aspect_ratio": _ASPECT_RATIO,
        "duration": _DURATION,
        "provider": _PROVIDER,
    },
)
O1_VIDEO_EDIT = ParameterSet(
    {"prompt": _TEXT_2500, "video_url": _VIDEO},
    {
        "image_list": ListOf(_IMAGE, min_items=1, max_items=7),
        "elements": _ELEMENTS,
        "keep_audio": Boolean(default=False),
        "provider": _PROVIDER,
    },
)
O1_VIDEO_REFERENCE = ParameterSet(
    {"prompt": _TEXT_2500, "video_url": _VIDEO},
    {
        "image_list": ListOf(_IMAGE, min_items=1, max_items=4),
        "elements": _ELEMENTS,
        "keep_audio": Boolean(default=False),
        "aspect_ratio": _ASPECT_RATIO,
        "duration": _DURATION,
        "provider": _PROVIDER,
    },
)
V26_IMAGE = ParameterSet(
    {"image_url": _IMAGE, "prompt": _TEXT_2500},
    {
        "negative_prompt": _TEXT,
        "generate_audio": Boolean(default=True),
        "duration": _DURATION,
        "provider": _PROVIDER,
    },
    ignored=_RATIO_IGNORED,
)
V26_TEXT = ParameterSet(
    {"prompt": _TEXT_2500},
    {
        **_GUIDANCE,
        "generate_audio": Boolean(default=True),
        "aspect_ratio": _ASPECT_RATIO_WITHOUT_DEFAULT,
        "duration": _DURATION,
        "provider": _PROVIDER,
    },
)

_V3_PROMPT = exactly_one("prompt", "multi_prompt")
_V3 = {
    "prompt": _TEXT,
    "multi_prompt": ListOf(_TEXT),
    **_GUIDANCE,
    "generate_audio": Boolean(default=True),
    "shot_type": Choice(("customize", "intelligent"), default="customize"),
    "duration": _DURATION_V3,
    "provider": _PROVIDER,
}
_OMNI_SHOT_TYPE = Choice(("customize", "intelligent", "intelligence"), default="customize")

V3_IMAGE = ParameterSet(
    {"image_url": _IMAGE},
    {**_V3, "tail_image_url": _IMAGE, "elements": _ELEMENTS_V3},
    (
        _V3_PROMPT,
        only_with("tail_image_url", "generate_audio", False),
        at_most_one_with("elements", "video_url"),
    ),
    _RATIO_IGNORED,
)
V3_TEXT = ParameterSet({}, {**_V3, "aspect_ratio": _ASPECT_RATIO}, (_V3_PROMPT,))
V3_OMNI_IMAGE = V3_IMAGE.taking(shot_type=_OMNI_SHOT_TYPE)
V3_OMNI_TEXT = V3_TEXT.taking(shot_type=_OMNI_SHOT_TYPE)

_V3_TURBO = {"prompt": _TEXT_3072, "multi_prompt": _SHOTS, "duration": _DURATION_V3}

V3_TURBO_IMAGE = ParameterSet({"image_url": _IMAGE}, _V3_TURBO, (_V3_PROMPT,), _RATIO_IGNORED)
V3_TURBO_TEXT = ParameterSet({}, {**_V3_TURBO, "aspect_ratio": _ASPECT_RATIO}, (_V3_PROMPT,))
