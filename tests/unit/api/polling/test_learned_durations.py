from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.polling.learned_durations import DurationStats, LearningSchedule
from airflow_provider_kling.api.polling.schedule import Schedule

PRIOR = Schedule.adaptive(194)


def taught(*seconds: float, model: str = "m", prior: Schedule = PRIOR) -> DurationStats:
    durations = DurationStats()
    for duration in seconds:
        durations.observe(model, duration, not_yet_at=0.99 * duration, prior=prior)
    return durations


def test_nothing_seen_changes_nothing():
    assert DurationStats().sharpen("m", PRIOR) is PRIOR
    assert taught(50).sharpen("other", PRIOR) is PRIOR
    assert taught(50).sharpen(None, PRIOR) is PRIOR


def test_one_duration_moves_the_estimate_a_little():
    sharpened = taught(50).sharpen("m", PRIOR)
    assert 100 < sharpened.usual_seconds < 194


def test_many_durations_replace_the_catalogues_figure():
    rng = random.Random(1)
    seen = taught(*(48 * math.exp(rng.gauss(0, 0.25)) for _ in range(200)))
    sharpened = seen.sharpen("m", PRIOR)
    assert sharpened.usual_seconds == pytest.approx(48, rel=0.15)
    assert 0.2 <= sharpened.spread < 0.45


def test_steady_durations_narrow_the_spread_and_scattered_ones_widen_it():
    steady = taught(*[194.0] * 50).sharpen("m", PRIOR)
    scattered = taught(*[60.0, 600.0] * 25).sharpen("m", PRIOR)
    assert steady.spread < 0.3
    assert scattered.spread > 0.7


def test_a_wrong_prior_makes_it_careful_at_first():
    """Ten durations far from the catalogue's: not yet sure, so the spread stays wide."""
    assert taught(*[48.0] * 10).sharpen("m", PRIOR).spread > 0.4


def test_it_follows_a_vendor_that_changes():
    seen = taught(*[400.0] * 500)
    for _ in range(200):
        seen.observe("m", 100.0, not_yet_at=99.0, prior=PRIOR)
    assert seen.sharpen("m", PRIOR).usual_seconds < 115


def test_what_happened_during_an_outage_is_not_a_slow_generation():
    seen = taught(*[190.0] * 5)
    before = seen.sharpen("m", PRIOR).usual_seconds
    seen.observe("m", 14_000.0, not_yet_at=120.0, prior=PRIOR)
    assert seen.sharpen("m", PRIOR).usual_seconds == pytest.approx(before, rel=0.01)


@pytest.mark.parametrize("completions", [1, 10, 50, 200, 1000])
def test_completions_that_nobody_watched_teach_nothing(completions):
    """After a restart of the triggerer they are seen at the first look, whatever they took."""
    seen = DurationStats()
    for _ in range(completions):
        seen.observe("m", 3700.0, prior=PRIOR)
    sharpened = seen.sharpen("m", PRIOR)
    assert sharpened.usual_seconds == pytest.approx(194, rel=0.01)
    assert sharpened.spread == 0.5
    for _ in range(10):
        seen.observe("m", 776.0, not_yet_at=760.0, prior=PRIOR)
    as_if_never = taught(*[776.0] * 10).sharpen("m", PRIOR)
    assert seen.sharpen("m", PRIOR).usual_seconds == pytest.approx(as_if_never.usual_seconds, rel=0.03)


def test_the_less_was_watched_the_less_it_teaches():
    told = []
    for not_yet_at in (0.0, 100.0, 200.0, 400.0, 590.0):
        seen = DurationStats()
        for _ in range(10):
            seen.observe("m", 600.0, not_yet_at=not_yet_at, prior=PRIOR)
        told.append(seen.sharpen("m", PRIOR).usual_seconds)
    assert told == sorted(told)
    assert told[0] == pytest.approx(194, rel=0.02)
    assert told[-1] > 450


def test_coarse_polls_do_not_make_it_certain():
    """A fixed interval as long as the durations themselves shows hardly anything of them."""
    rng, seen, prior = random.Random(1), DurationStats(), Schedule.fixed(600)
    for _ in range(200):
        duration = 194 * math.exp(rng.gauss(0, 0.5))
        looks = math.ceil(duration / 600)
        seen.observe("m", looks * 600.0, not_yet_at=(looks - 1) * 600.0, prior=prior)
    assert seen.sharpen("m", PRIOR).spread > 0.4


def test_a_slow_generation_that_was_watched_is_one():
    seen = taught(*[190.0] * 5)
    before = seen.sharpen("m", PRIOR).usual_seconds
    seen.observe("m", 1400.0, not_yet_at=1380.0, prior=PRIOR)
    assert seen.sharpen("m", PRIOR).usual_seconds > 1.2 * before


def test_completed_at_the_first_look_pulls_the_estimate_down():
    seen = DurationStats()
    for _ in range(20):
        seen.observe("m", 60.0, prior=PRIOR)
    assert seen.sharpen("m", PRIOR).usual_seconds < 80


def test_a_fixed_schedule_learns_but_keeps_its_interval():
    fixed = Schedule.fixed(30)
    sharpened = taught(*[50.0] * 10, prior=fixed).sharpen("m", fixed)
    assert sharpened.next_wait(100) == 30


@pytest.mark.parametrize(
    ("seconds", "not_yet_at"), [(0, 0), (-5, 0), (math.nan, 0), (math.inf, 0), (50, 60), (50, -1)]
)
def test_what_only_a_clock_that_was_set_can_produce_is_ignored(seconds, not_yet_at):
    seen = DurationStats()
    seen.observe("m", seconds, not_yet_at=not_yet_at, prior=PRIOR)
    assert seen.sharpen("m", PRIOR) is PRIOR


def test_a_day_is_the_longest_usual_duration():
    prior = Schedule.adaptive(86400)
    seen = DurationStats()
    for _ in range(10):
        seen.observe("m", 200_000.0, not_yet_at=190_000.0, prior=prior)
    assert seen.sharpen("m", prior).usual_seconds == pytest.approx(86400)


def test_the_model_not_seen_for_longest_is_forgotten():
    seen = DurationStats(models_kept=2)
    for model in ("a", "b", "a", "c"):
        seen.observe(model, 50.0, not_yet_at=49.0, prior=PRIOR)
    known = [model for model in "abc" if seen.sharpen(model, PRIOR) is not PRIOR]
    assert known == ["a", "c"]


def test_what_was_learned_is_kept_for_each_catalogue_figure():
    """DAGs of different versions may bring different figures for one model."""
    seen = taught(*[100.0] * 3)
    quick, slow = (seen.sharpen("m", Schedule.adaptive(usual)) for usual in (50, 400))
    assert quick.usual_seconds < seen.sharpen("m", PRIOR).usual_seconds < slow.usual_seconds
    for usual in range(10, 400):
        assert seen.sharpen("m", Schedule.adaptive(usual)).usual_seconds > 0
    assert seen.sharpen("m", Schedule.adaptive(50)) == quick


@given(
    st.lists(st.tuples(st.floats(0.0, 1e9), st.floats(0.0, 1.0)), max_size=200),
    st.floats(1.0, 86400.0),
)
def test_whatever_was_seen_the_schedule_is_a_valid_one(seen, usual):
    prior, durations = Schedule.adaptive(usual), DurationStats()
    for seconds, share in seen:
        durations.observe("m", seconds, not_yet_at=share * seconds, prior=prior)
    sharpened = durations.sharpen("m", prior)
    assert Schedule.from_dict(sharpened.as_dict()) == sharpened
    assert 2.0 <= sharpened.next_wait(100.0) <= 300.0


@given(st.lists(st.floats(10.0, 2000.0), min_size=1, max_size=100))
def test_the_estimate_lies_between_the_prior_and_what_was_seen(seen):
    usual = taught(*seen).sharpen("m", PRIOR).usual_seconds
    assert 0.98 * min(*seen, 194.0) <= usual <= 1.02 * max(*seen, 194.0)


def test_live_figures_take_the_catalogues_place_and_are_sharpened_like_them():
    durations = taught()
    live = Schedule(usual_seconds=90.0, spread=0.3)
    durations.believe("m", live)
    assert durations.sharpen("m", PRIOR) is live
    assert durations.sharpen("other", PRIOR) is PRIOR
    assert durations.sharpen("m", Schedule.fixed(15)) == Schedule.fixed(15)
    durations.observe("m", 45.0, not_yet_at=44.0, prior=PRIOR)
    assert 45 < durations.sharpen("m", PRIOR).usual_seconds < 90


def test_a_wait_gets_sharper_while_others_of_its_model_complete():
    durations = taught()
    waiting = LearningSchedule(durations, "m", PRIOR)
    assert waiting.next_wait(10.0) == PRIOR.next_wait(10.0)
    for _ in range(30):
        LearningSchedule(durations, "m", PRIOR).learn(60.0, 58.0)
    assert waiting.next_wait(10.0) < PRIOR.next_wait(10.0)


def test_nothing_is_learned_about_a_model_nobody_names():
    durations = taught()
    LearningSchedule(durations, None, PRIOR).learn(60.0, 58.0)
    assert LearningSchedule(durations, None, PRIOR).next_wait(10.0) == PRIOR.next_wait(10.0)
