"""The scenes of the effects models, and how many pictures each takes."""

from __future__ import annotations

from typing import Final

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
