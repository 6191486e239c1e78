from __future__ import annotations

import importlib.util
import json
import math
import random
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.polling.schedule import (
    EARLY_LOOK,
    JITTER,
    LONGEST_INTERVAL,
    LONGEST_WAIT,
    SHORTEST_INTERVAL,
    SHORTEST_WAIT,
    USUAL_SECONDS,
    Schedule,
    jittered,
)

BENCHMARK = Path(__file__).resolve().parents[4] / "benchmarks" / "schedule.py"

USUAL = st.floats(1.0, 86400.0)
SPREADS = st.floats(0.2, 0.8)
ELAPSED = st.floats(0.0, 1e6)


def polls(schedule: Schedule, until: float) -> list[float]:
    """The seconds at which it polls when nothing moves its waits."""
    times, elapsed = [], 0.0
    while elapsed < until:
        elapsed += schedule.next_wait(elapsed)
        times.append(elapsed)
    return times


# The adaptive schedule


def test_one_early_look_then_quiet_until_completion_is_likely():
    early, first, second, *_ = polls(Schedule.adaptive(), 400)
    assert early == EARLY_LOOK
    assert 70 < first < 85
    assert 15 < second - first < 25


def test_it_polls_most_often_around_the_usual_duration():
    schedule = Schedule.adaptive()
    waits = {elapsed: schedule.next_wait(elapsed) for elapsed in (80, 120, 194, 300, 1000, 4000)}
    assert waits[80] > waits[120] > waits[194] > waits[300]
    assert waits[300] < waits[1000] < waits[4000]
    assert waits[300] == pytest.approx(10, abs=0.5)


def test_it_never_hammers_in_the_tail():
    schedule = Schedule.adaptive()
    assert schedule.next_wait(4 * USUAL_SECONDS) > 14
    assert schedule.next_wait(3600) > 30
    assert len(polls(schedule, 24 * 3600)) < 1200


@pytest.mark.parametrize("elapsed", [5.0, 6.0, 8.0, 9.9, 20.0])
def test_a_look_just_taken_is_not_taken_again(elapsed):
    """A sensor that looked before it deferred has already had the early look."""
    assert elapsed + Schedule.adaptive().next_wait(elapsed) > 70


def test_it_depends_on_the_submit_and_not_on_the_process():
    """Polls after a restart fall where they would have fallen without one."""
    schedule = Schedule.adaptive()
    times = polls(schedule, 600)
    reborn = Schedule.from_dict(json.loads(json.dumps(schedule.as_dict())))
    for at, following in pairwise(times):
        assert at + reborn.next_wait(at) == pytest.approx(following)


def test_a_quicker_model_is_polled_sooner_and_more_often():
    quick, usual, slow = (Schedule.adaptive(seconds) for seconds in (50, 194, 430))
    first = [polls(schedule, 1000)[1] for schedule in (quick, usual, slow)]
    assert first == sorted(first)
    assert quick.next_wait(50) < usual.next_wait(194) < slow.next_wait(430)


def test_a_model_nobody_knows_is_like_the_others():
    assert Schedule.adaptive(None) == Schedule.adaptive(USUAL_SECONDS)


@pytest.mark.parametrize("elapsed", [-1e9, -5.0, math.nan])
def test_clocks_that_disagree_count_as_no_time(elapsed):
    assert Schedule.adaptive().next_wait(elapsed) == EARLY_LOOK


@given(USUAL, SPREADS)
def test_an_endless_wait_has_a_next_poll_too(usual, spread):
    assert Schedule(usual_seconds=usual, spread=spread).next_wait(math.inf) == LONGEST_WAIT


@given(USUAL, SPREADS, ELAPSED)
def test_waits_are_bounded(usual, spread, elapsed):
    wait = Schedule(usual_seconds=usual, spread=spread).next_wait(elapsed)
    assert SHORTEST_WAIT <= wait <= LONGEST_WAIT


@given(USUAL, SPREADS, ELAPSED, st.floats(0.0, 1e5))
def test_who_asks_later_polls_no_earlier(usual, spread, elapsed, later):
    schedule = Schedule(usual_seconds=usual, spread=spread)
    due = elapsed + schedule.next_wait(elapsed)
    assert elapsed + later + schedule.next_wait(elapsed + later) >= due - 1e-6 * (1 + due)


@given(USUAL, SPREADS, st.floats(4.0, 1000.0))
def test_waits_only_grow_once_almost_all_should_be_done(usual, spread, times):
    schedule = Schedule(usual_seconds=usual, spread=spread)
    waits = [schedule.next_wait(usual * times * more) for more in (1.0, 1.5, 2.0)]
    assert waits == pytest.approx(sorted(waits), rel=1e-6)


# Against the optimum: the figures of the benchmark, which computes it by dynamic programming


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_the_schedule", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rules(benchmark):
    return benchmark.optimal_policies()


def test_the_optimum_is_the_known_one(benchmark, rules):
    """Independent check: without a grid it is half of (the integral of sqrt(S f)) squared."""
    normal = 1 / math.sqrt(2 * math.pi)
    integral, step = 0.0, 0.5
    for k in range(6000):
        t = (k + 0.5) * step
        z = math.log(t / 194) / 0.5
        density = normal * math.exp(-z * z / 2) / (0.5 * t)
        integral += math.sqrt(density * math.erfc(z / math.sqrt(2)) / 2) * step
    durations = benchmark.log_normal(194, 0.5, 500)
    scores = benchmark.Frontier.of(durations, rules, 1.0).scores
    for score in scores[:5]:
        assert score.polls * score.lag == pytest.approx(integral**2 / 2, rel=0.02)


def test_within_three_percent_of_the_optimum_on_the_fitted_log_normal(benchmark, rules):
    durations = benchmark.log_normal(194, 0.5, 500)
    score = benchmark.measure(Schedule.adaptive().next_wait, durations, start=EARLY_LOOK)
    assert 12 < score.polls < 14
    assert benchmark.Frontier.of(durations, rules, 1.0).ratio(score) < 1.03


def test_within_three_percent_of_the_optimum_on_the_published_durations(benchmark, rules):
    durations = benchmark.PUBLISHED
    repeats = 2000
    score = benchmark.measure(Schedule.adaptive().next_wait, durations, start=EARLY_LOOK, repeats=repeats)
    assert benchmark.Frontier.of(durations, rules, 1.0, repeats).ratio(score) < 1.03


@pytest.mark.parametrize("scale", [0.25, 0.3, 0.35, 0.5, 0.7, 1.4, 2.0])
def test_within_a_quarter_of_it_when_durations_are_a_quarter_to_twice_as_long(benchmark, rules, scale):
    durations = benchmark.log_normal(scale * 194, 0.5, 500)
    score = benchmark.measure(Schedule.adaptive().next_wait, durations, start=EARLY_LOOK)
    assert benchmark.Frontier.of(durations, rules, scale).ratio(score) < 1.25


def after(benchmark, rules, schedules, scale: float) -> float:
    """Lag against the optimum that knows the durations, as the mean of several processes."""
    durations = benchmark.log_normal(scale * 194, 0.5, 300)
    policies = [schedule.next_wait for schedule in schedules]
    return benchmark.Frontier.of(durations, rules, scale).ratio(
        benchmark.mean_score(policies, durations, EARLY_LOOK)
    )


@pytest.mark.parametrize(
    ("scale", "most"), [(0.25, 1.06), (0.5, 1.06), (1.0, 1.06), (2.0, 1.06), (4.0, 1.15)]
)
def test_near_it_once_ten_completions_were_seen(benchmark, rules, scale, most):
    schedules = [benchmark.learned(scale, 10, seed) for seed in range(20)]
    assert after(benchmark, rules, schedules, scale) < most


UNWATCHED = {
    "all of it": lambda rng: 0.0,
    "from some moment on": lambda rng: rng.uniform(0.0, 600.0),
    "from the same moment on, as of a batch": lambda rng: 150.0,
    "now and then": lambda rng: rng.uniform(0.0, 600.0) if rng.random() < 0.3 else math.inf,
}


@pytest.mark.parametrize("completions", [10, 50, 500])
@pytest.mark.parametrize("unwatched", UNWATCHED.values(), ids=UNWATCHED)
def test_completions_that_nobody_watched_do_not_lead_it_astray(benchmark, rules, unwatched, completions):
    schedules = [benchmark.learned(1.0, completions, seed, unwatched) for seed in range(6)]
    assert all(schedule.spread > 0.33 for schedule in schedules)
    assert after(benchmark, rules, schedules, 1.0) < 1.06


def test_the_early_look_pays_when_one_in_thirty_fails_at_once(benchmark):
    durations, _ = benchmark.with_quick_failures(0.03, 500)

    def cost(policy):
        score = benchmark.measure(policy, durations)
        return 0.5 * score.polls + score.lag

    assert cost(Schedule.adaptive().next_wait) < 0.95 * cost(benchmark.without_early_look)


@pytest.mark.parametrize("share", [0.01, 0.03])
def test_early_look_and_all_it_is_within_three_percent_of_the_optimum_that_knows_the_share(benchmark, share):
    durations, cdf = benchmark.with_quick_failures(share, 500)
    best = benchmark.measure(benchmark.optimum(cdf, 0.5, 1500), durations)
    score = benchmark.measure(Schedule.adaptive().next_wait, durations)
    assert 0.5 * score.polls + score.lag < 1.03 * (0.5 * best.polls + best.lag)


# The fixed schedule


@given(st.floats(SHORTEST_INTERVAL, LONGEST_INTERVAL), ELAPSED)
def test_a_fixed_schedule_is_fixed(interval, elapsed):
    assert Schedule.fixed(interval).next_wait(elapsed) == interval


@pytest.mark.parametrize(
    "interval", [0, -1, -0.0, 0.5, 3601, math.nan, math.inf, -math.inf, True, "30", None, [30]]
)
def test_an_absurd_interval_is_refused_with_what_is_allowed(interval):
    with pytest.raises(ValueError, match=r"poll interval .* from 1 to 3600 seconds"):
        Schedule.fixed(interval)


@pytest.mark.parametrize("usual", [0, -194, math.nan, math.inf, 1e6, True, "194"])
def test_an_absurd_usual_duration_is_refused_with_what_is_allowed(usual):
    with pytest.raises(ValueError, match=r"usual duration .* from 1 to 86400 seconds"):
        Schedule.adaptive(usual)


# Jitter


@given(st.floats(0.0, 3600.0), st.randoms(use_true_random=False))
def test_jitter_stays_within_its_share(wait, rng):
    moved = jittered(wait, rng.random)
    assert (1 - JITTER) * wait - 1e-9 <= moved <= (1 + JITTER) * wait + 1e-9


def test_jitter_spreads_waits_and_keeps_their_rate():
    rng = random.Random(1)
    waits = [jittered(10.0, rng.random) for _ in range(1000)]
    assert sum(waits) / 1000 == pytest.approx(10.0, rel=0.01)
    assert max(waits) - min(waits) > 1.9


# In the arguments of a trigger


@given(st.one_of(st.builds(Schedule.fixed, st.floats(1, 3600)), st.builds(Schedule.adaptive, USUAL)))
def test_it_travels_as_json(schedule):
    assert Schedule.from_dict(json.loads(json.dumps(schedule.as_dict()))) == schedule


def test_rows_of_other_versions_are_read():
    assert Schedule.from_dict({}) == Schedule.adaptive()
    assert Schedule.from_dict({"usual_seconds": 80, "new": [1]}) == Schedule.adaptive(80)
    assert Schedule.from_dict({"interval": 30, "usual_seconds": "?"}) == Schedule.fixed(30)
    assert Schedule.from_dict({"interval": None, "spread": 0.3}) == Schedule(spread=0.3)


@pytest.mark.parametrize("data", [{"interval": -1}, {"usual_seconds": "x"}, {"spread": 9}])
def test_rows_of_nobody_are_refused(data):
    with pytest.raises(ValueError, match="must be a number from"):
        Schedule.from_dict(data)
