from __future__ import annotations

import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.settings import HIGHEST_RATE, LOWEST_RATE, checked_rate
from airflow_provider_kling.api.transport.rate_limiter import LONGEST_PAUSE, Limiter, RateChange


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def limiter(per_minute: float | None = None) -> tuple[Limiter, Clock]:
    clock = Clock()
    return Limiter(per_minute, clock=clock, random=random.Random(1).random), clock


def let_go(limiter: Limiter, at_most: int = 1000) -> int:
    """How many requests may go at this very moment."""
    count = 0
    while count < at_most and limiter.acquire() == 0.0:
        count += 1
    return count


def use(limiter: Limiter, clock: Clock, *, seconds: float, a_second: int) -> None:
    """Steady use that the vendor is content with."""
    for _ in range(round(seconds)):
        for _ in range(a_second):
            if limiter.acquire() == 0.0:
                limiter.on_reply(200)
        clock.now += 1.0


def test_without_a_rate_nothing_is_held_back():
    free, _ = limiter()
    assert let_go(free, 10_000) == 10_000
    assert free.per_minute is None
    assert free.on_reply(200) is None


# The configured rate


@pytest.mark.parametrize(("per_minute", "at_once"), [(1, 1), (30, 1), (60, 1), (600, 10)])
def test_a_burst_is_a_seconds_worth(per_minute, at_once):
    limited, _ = limiter(per_minute)
    assert let_go(limited) == at_once
    assert limited.acquire() > 0.0


def test_the_wait_is_the_time_until_the_next_request_may_go():
    limited, clock = limiter(6)
    assert limited.acquire() == 0.0
    assert limited.acquire() == pytest.approx(10.0)
    clock.now += 4.0
    assert limited.acquire() == pytest.approx(6.0)
    clock.now += 6.0
    assert limited.acquire() == 0.0


def test_the_configured_rate_is_reached_not_only_kept():
    limited, clock = limiter(600)
    went = 0
    for _ in range(600):
        went += let_go(limited)
        clock.now += 0.1
    assert 580 <= went <= 600


@pytest.mark.parametrize("per_minute", [1.5, 2.5, 30.5, 60.5, 90.7, 600.3])
def test_a_fraction_lets_no_further_request_go(per_minute):
    limited, clock = limiter(per_minute)
    went: list[float] = []
    while clock.now < 1200.0:
        went += [clock.now] * let_go(limited)
        clock.now += limited.acquire()
    busiest = max(sum(start <= at < start + 60.0 - 1e-6 for at in went) for start in went)
    assert busiest == math.floor(per_minute)


def test_another_rate_can_be_configured():
    limited, clock = limiter(600)
    assert let_go(limited) == 10
    clock.now += 10.0
    limited.configure(60)
    assert let_go(limited) == 1
    assert limited.per_minute == 60.0
    limited.configure(None)
    assert let_go(limited) == 1000
    limited.configure(6)
    assert let_go(limited) <= 1
    with pytest.raises(ValueError, match=r"requests a minute"):
        limited.configure(0)
    assert limited.per_minute == pytest.approx(6.0)


@pytest.mark.parametrize("per_minute", [None, 30, 60_000])
def test_another_configured_rate_lifts_no_restraint(per_minute):
    limited, clock = limiter(600)
    use(limited, clock, seconds=60, a_second=10)
    limited.on_reply(429, 30.0)
    restrained = limited.per_minute
    assert restrained is not None
    limited.configure(per_minute)
    assert limited.acquire() >= 30.0
    now = limited.per_minute
    assert now is not None
    assert now <= restrained
    clock.now += 34.0
    for _ in range(1200):
        use(limited, clock, seconds=1, a_second=20)
    assert limited.per_minute == (None if per_minute is None else pytest.approx(per_minute, rel=0.02))


def test_holding_back_is_told_once_and_not_for_each_wait():
    limited, clock = limiter(60)
    told: list[RateChange] = []
    for _ in range(500):
        let_go(limited, 5)
        change = limited.on_reply(200)
        told += [change] if change else []
        clock.now += 1.0
    assert [change.state for change in told] == ["held back"]
    assert told[0].per_minute == pytest.approx(60.0)


# 429


def test_a_429_pauses_everything_for_what_was_asked():
    limited, clock = limiter()
    use(limited, clock, seconds=20, a_second=10)
    change = limited.on_reply(429, 30.0)
    assert change is not None
    assert (change.state, change.status) == ("paused", 429)
    assert 30.0 <= change.pause <= 33.0
    assert limited.acquire() == pytest.approx(change.pause)
    clock.now += 29.9
    assert limited.acquire() > 0.0
    clock.now += change.pause - 29.9
    assert limited.acquire() == 0.0


def test_after_the_pause_one_request_tries_the_air():
    limited, clock = limiter()
    use(limited, clock, seconds=20, a_second=100)
    change = limited.on_reply(429, 5.0)
    assert change is not None
    clock.now += change.pause
    assert let_go(limited) == 1


def test_a_429_halves_the_rate_that_was_too_much():
    limited, clock = limiter()
    use(limited, clock, seconds=60, a_second=10)
    limited.on_reply(429, 5.0)
    assert limited.per_minute == pytest.approx(300.0, rel=0.1)


def test_a_use_of_two_seconds_is_measured_over_two_seconds():
    limited, clock = limiter()
    use(limited, clock, seconds=2, a_second=10)
    limited.on_reply(429, 5.0)
    assert limited.per_minute == pytest.approx(300.0, rel=0.25)


def test_a_pause_gives_away_nothing_that_the_configured_rate_would_not():
    limited, clock = limiter(6)
    assert limited.acquire() == 0.0
    limited.on_reply(429, 1.0)
    clock.now += 2.0
    assert limited.acquire() > 5.0


def test_after_a_refused_cold_start_it_speeds_up_until_demand_is_met():
    """It is free only when nothing is held back any more, so that freedom is no new burst."""
    limited, clock = limiter()
    use(limited, clock, seconds=1, a_second=2)
    limited.on_reply(429, 1.0)
    last, seconds = 0.0, 0
    while (rate := limited.per_minute) is not None:
        last = rate
        use(limited, clock, seconds=1, a_second=20)
        seconds += 1
        assert seconds < 600
    assert last > 1.5 * 20 * 60


def test_then_the_rate_grows_steadily_until_it_is_free():
    limited, clock = limiter()
    use(limited, clock, seconds=60, a_second=10)
    limited.on_reply(429, 1.0)
    rates = []
    while limited.per_minute is not None and len(rates) < 600:
        rates.append(limited.per_minute)
        use(limited, clock, seconds=1, a_second=10)
    assert rates == sorted(rates)
    steps = [after - before for before, after in pairwise(rates[2:23])]
    assert max(steps) == pytest.approx(min(steps))
    assert 60 < len(rates) < 180


def test_a_pause_of_many_is_told_and_counted_once():
    limited, clock = limiter()
    use(limited, clock, seconds=60, a_second=10)
    changes = [limited.on_reply(429, 5.0) for _ in range(50)]
    assert sum(change is not None for change in changes) == 1
    assert limited.per_minute == pytest.approx(300.0, rel=0.1)


def test_a_longer_wish_during_a_pause_prolongs_it():
    limited, clock = limiter()
    limited.on_reply(429, 5.0)
    limited.on_reply(429, 60.0)
    assert 60.0 <= limited.acquire() <= 66.0
    clock.now += 1.0
    limited.on_reply(429, 2.0)
    assert limited.acquire() >= 59.0


@pytest.mark.parametrize(
    ("asked", "least"),
    [(1e9, LONGEST_PAUSE), (0.0, 1.0), (-5.0, 1.0), (math.nan, 1.0), (math.inf, 1.0), (None, 1.0)],
)
def test_absurd_wishes_are_bounded(asked, least):
    limited, _ = limiter()
    limited.on_reply(429, asked)
    assert least <= limited.acquire() <= 1.1 * least


def test_without_retry_after_pauses_double_until_something_succeeds():
    limited, clock = limiter()
    pauses = []
    for _ in range(9):
        change = limited.on_reply(429)
        assert change is not None
        pauses.append(change.pause)
        clock.now += change.pause
    for pause, expected in zip(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert expected <= pause <= 1.1 * expected
    limited.on_reply(200)
    change = limited.on_reply(429)
    assert change is not None
    assert change.pause <= 1.1


def test_a_storm_against_a_limit_that_nobody_told():
    """A vendor that allows 10 requests a second, and demand for 100."""
    limited, clock = limiter()
    allowed, served, lines = 10.0, 0, 0
    for _ in range(6000):
        clock.now += 0.1
        allowed = min(10.0, allowed + 1.0)
        for _ in range(let_go(limited, 10)):
            status = 200 if allowed >= 1.0 else 429
            if status == 200:
                allowed -= 1.0
                served += 1
            lines += limited.on_reply(status, 2.0 if status == 429 else None) is not None
    assert served / 600.0 > 7.0
    assert lines <= 20


# 5xx


def test_one_5xx_of_many_slows_nothing():
    limited, clock = limiter()
    for _ in range(100):
        use(limited, clock, seconds=2, a_second=10)
        assert limited.on_reply(502) is None
    assert limited.per_minute is None


def test_a_series_of_5xx_slows_down_more_mildly_than_a_429():
    limited, clock = limiter()
    use(limited, clock, seconds=60, a_second=10)
    changes = [change for _ in range(3) if (change := limited.on_reply(503))]
    assert [change.state for change in changes] == ["slowed"]
    assert limited.per_minute == pytest.approx(480.0, rel=0.1)
    assert limited.acquire() == 0.0


def test_5xx_in_flight_together_cut_once_a_second():
    limited, clock = limiter()
    use(limited, clock, seconds=60, a_second=10)
    for _ in range(16):
        limited.on_reply(500)
    assert limited.per_minute == pytest.approx(480.0, rel=0.1)


def test_a_long_outage_leaves_a_twentieth_of_the_goal():
    limited, clock = limiter(600)
    for _ in range(600):
        if limited.acquire() == 0.0:
            limited.on_reply(503)
        clock.now += 0.5
    assert limited.per_minute is not None
    assert limited.per_minute >= 0.05 * 590


def test_5xx_after_a_storm_of_429_speed_nothing_up():
    limited, clock = limiter(6000)
    for _ in range(20):
        limited.acquire()
        change = limited.on_reply(429, 1.0)
        clock.now += change.pause if change else 0.0
    slow = limited.per_minute
    for _ in range(20):
        limited.on_reply(500)
    assert slow is not None
    assert slow < 60
    assert limited.per_minute == slow


def test_a_503_that_names_a_time_pauses_and_cuts_mildly():
    limited, clock = limiter()
    use(limited, clock, seconds=60, a_second=10)
    change = limited.on_reply(503, 20.0)
    assert change is not None
    assert (change.state, change.status) == ("paused", 503)
    assert 20.0 <= limited.acquire() <= 22.0
    assert limited.per_minute == pytest.approx(480.0, rel=0.1)


@pytest.mark.parametrize("status", [200, 201, 302, 400, 401, 403, 404])
def test_other_answers_say_nothing_about_the_rate(status):
    limited, _ = limiter()
    for _ in range(100):
        assert limited.on_reply(status, 50.0) is None
    assert let_go(limited, 100) == 100


# Clocks


def test_a_clock_set_back_neither_prolongs_a_pause_nor_ends_it():
    limited, clock = limiter()
    limited.on_reply(429, 10.0)
    clock.now -= 3600.0
    assert 10.0 <= limited.acquire() <= 11.0
    clock.now += 11.0
    assert limited.acquire() == 0.0


def test_a_clock_that_jumps_ahead_lets_no_burst_go():
    limited, clock = limiter(600)
    let_go(limited)
    clock.now += 86400.0
    assert let_go(limited) == 10


def test_a_clock_that_jumps_ahead_does_not_lift_the_restraint():
    limited, clock = limiter()
    use(limited, clock, seconds=60, a_second=100)
    limited.on_reply(429, 10.0)
    clock.now += 86400.0
    assert let_go(limited) < 100
    assert limited.per_minute is not None


# What always holds

STATUSES = st.sampled_from([200, 200, 200, 404, 429, 500, 502, 503])
RETRY_AFTER = st.one_of(st.none(), st.floats(0.0, 1e6))
RATES = st.one_of(st.none(), st.integers(int(LOWEST_RATE), 6000))
STEPS = st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(0, 30), STATUSES, RETRY_AFTER), max_size=60)


@given(st.floats(LOWEST_RATE, 2000), STEPS)
def test_no_minute_holds_more_than_the_configured_rate(per_minute, steps):
    limited, clock = limiter(per_minute)
    went: list[float] = []
    for seconds, tries, status, retry_after in steps:
        clock.now += seconds
        went += [clock.now] * let_go(limited, tries * 10)
        limited.on_reply(status, retry_after)
    for first, start in enumerate(went):
        assert sum(t < start + 60.0 - 1e-6 for t in went[first:]) <= per_minute


@given(RATES, STEPS)
def test_it_always_recovers(per_minute, steps):
    limited, clock = limiter(per_minute)
    configured = limited.per_minute
    for seconds, tries, status, retry_after in steps:
        clock.now += seconds
        let_go(limited, tries)
        limited.on_reply(status, retry_after)
    for _ in range(1000):
        clock.now += 1.0
        if limited.acquire() == 0.0:
            limited.on_reply(200)
    assert limited.per_minute == configured


@given(RATES, STEPS)
def test_trouble_never_speeds_up(per_minute, steps):
    limited, clock = limiter(per_minute)
    for seconds, tries, status, retry_after in steps:
        clock.now += seconds
        let_go(limited, tries)
        before = limited.per_minute
        limited.on_reply(status, retry_after)
        after = limited.per_minute
        if before is not None:
            assert after is not None
            assert after <= before
        if status == 429:
            assert after is not None
            assert limited.acquire() > 0.0


@given(
    RATES,
    st.lists(st.tuples(st.floats(-1e5, 1e5), st.integers(0, 5), STATUSES, RETRY_AFTER), max_size=60),
)
def test_waits_are_finite_and_what_they_say_whatever_the_clock_does(per_minute, steps):
    limited, clock = limiter(per_minute)
    longest = max(1.1 * LONGEST_PAUSE, 60.0 / (per_minute or 60.0))
    for jump, tries, status, retry_after in steps:
        clock.now += jump
        let_go(limited, tries)
        limited.on_reply(status, retry_after)
        wait = limited.acquire()
        assert 0.0 <= wait <= longest
        # A pause, and after it the configured rate: never a third wait.
        for _ in range(2):
            clock.now += wait
            wait = limited.acquire() if wait else 0.0
        assert wait <= 1e-6


def test_threads_share_one_bucket_and_take_turns():
    inside: list[int] = []
    crowds: list[int] = []

    def clock() -> float:
        inside.append(1)
        time.sleep(0)  # lets another thread run, if no lock keeps it out
        crowds.append(len(inside))
        inside.pop()
        return 0.0

    limited = Limiter(600, clock=clock)
    with ThreadPoolExecutor(16) as pool:
        waits = list(pool.map(lambda _: limited.acquire(), range(2000)))
        list(pool.map(lambda _: limited.on_reply(200), range(2000)))
    assert waits.count(0.0) == 10
    assert max(crowds) == 1


# Words


@pytest.mark.parametrize("per_minute", [0, -1, 0.5, math.nan, math.inf, 1e9, True, "60"])
def test_an_absurd_rate_is_refused_with_what_is_allowed(per_minute):
    with pytest.raises(ValueError, match=r"from 1 to 60000 requests a minute"):
        checked_rate(per_minute)
    with pytest.raises(ValueError, match=r"requests a minute"):
        Limiter(per_minute)


@pytest.mark.parametrize("per_minute", [None, LOWEST_RATE, 200, HIGHEST_RATE])
def test_sensible_rates_are_taken(per_minute):
    assert checked_rate(per_minute) == per_minute


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (RateChange("paused", 429, 31.6, 300.0), ("429", "32 s", "300 a minute")),
        (RateChange("slowed", 502, 0.0, 480.2), ("502", "480 a minute")),
        (RateChange("held back", None, 0.0, 200.0), ("requests_per_minute", "200 a minute")),
        (RateChange("free", None, 0.0, None), ("normal", "without a limit")),
        (RateChange("free", None, 0.0, 200.0), ("normal", "200 a minute")),
    ],
)
def test_a_change_is_one_line_for_a_person(change, facts):
    line = str(change)
    assert "\n" not in line
    for fact in facts:
        assert fact in line
