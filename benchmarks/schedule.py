"""Polls against lag: the adaptive schedule beside the usual policies and the optimum.

Run with ``python benchmarks/schedule.py``; no network, no dependency, the same figures each time
(only the microseconds a call depend on the machine). It takes some seconds.

The optimum is computed here, by dynamic programming over a one-second grid: of all policies that
know the distribution of durations and see only "not yet", the one with the least
``price * polls + lag``. Varying the price gives the frontier: the least lag for each number of
polls. A policy's "against optimum" is its lag divided by the frontier's lag at as many polls.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import statistics
import sys
import timeit
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from airflow_provider_kling.api.polling.learned_durations import DurationStats
from airflow_provider_kling.api.polling.schedule import (
    EARLY_LOOK,
    JITTER,
    POLL_PRICE,
    USUAL_SECONDS,
    USUAL_SPREAD,
    Schedule,
    jittered,
)

# Seconds from submit to completed in the examples on the vendor's model pages.
PUBLISHED = (
    *(78, 79, 110, 122, 126, 127, 152, 186, 186, 186),
    *(203, 204, 235, 235, 249, 322, 381, 401, 431),
)
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
PRICES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
PROCESSES = 20
QUICK_SHARES = (0.0, 0.01, 0.03, 0.1)
# How fast a refused generation fails is published nowhere: an assumption, named in the output.
QUICK_FAILURE_SECONDS, QUICK_FAILURE_SPREAD = 3.0, 0.5

Policy = Callable[[float], float]
"""Seconds until the next poll, from the seconds since the submit."""


def log_normal(median: float, spread: float, n: int) -> list[float]:
    """``n`` durations at the middles of equally likely parts of the distribution."""
    normal = statistics.NormalDist()
    return [median * math.exp(spread * normal.inv_cdf((i + 0.5) / n)) for i in range(n)]


def optimum(cdf: Callable[[float], float], price: float, horizon: int) -> Policy:
    """The policy with the least ``price * polls + lag``, on a grid of one second."""
    done = [cdf(t) for t in range(horizon + 1)]
    done[-1] = 1.0
    waiting = [0.0]  # seconds that completed videos have waited in all, had nobody polled
    for t in range(horizon):
        waiting.append(waiting[-1] + (done[t] + done[t + 1]) / 2)
    cost = [0.0] * (horizon + 1)
    following = [horizon] * (horizon + 1)
    for t in range(horizon - 1, -1, -1):
        best, at = math.inf, horizon
        # Who is later polls later (the cost has decreasing differences): a bound on the search.
        latest = following[t + 1] if t + 1 < horizon else horizon
        for u in range(t + 1, latest + 1):
            total = waiting[u] - waiting[t] - done[t] * (u - t) + cost[u]
            if total < best:
                best, at = total, u
        cost[t] = best + price * (1.0 - done[t])
        following[t] = at

    def policy(elapsed: float) -> float:
        low = min(int(elapsed), horizon - 1)
        share = min(elapsed - low, 1.0)
        due = following[low] + share * (following[low + 1] - following[low])
        return max(due - elapsed, 1.0)

    return policy


def log_normal_cdf(median: float, spread: float) -> Callable[[float], float]:
    def cdf(t: float) -> float:
        return math.erfc(-math.log(t / median) / spread / math.sqrt(2)) / 2 if t > 0 else 0.0

    return cdf


@dataclass(frozen=True)
class Score:
    """Means over durations and repeats.

    :param polls: polls until the completion was seen.
    :param lag: seconds from the completion to the poll that saw it.
    :param late: the 95th percentile of the lag.
    """

    polls: float
    lag: float
    late: float


def measure(policy: Policy, durations: Sequence[float], *, start: float = 0.0, repeats: int = 40) -> Score:
    """Run a policy, jittered, ``repeats`` times over durations in ascending order.

    :param start: seconds since the submit at which counting begins.
    """
    rng = random.Random(4)
    polls, lags = 0, []
    for _ in range(repeats):
        elapsed, count, i = start, 0, bisect_left(durations, start)
        while i < len(durations):
            elapsed += jittered(policy(elapsed), rng.random)
            count += 1
            while i < len(durations) and durations[i] <= elapsed:
                polls += count
                lags.append(elapsed - durations[i])
                i += 1
    lags.sort()
    return Score(polls / len(lags), statistics.fmean(lags), lags[int(0.95 * len(lags))])


@dataclass(frozen=True)
class Frontier:
    """The least lag for each number of polls, from many polls to few."""

    scores: tuple[Score, ...]

    @classmethod
    def of(
        cls,
        durations: Sequence[float],
        rules: Sequence[Policy],
        scale: float,
        repeats: int = 40,
    ) -> Frontier:
        """Measure the optimal policies for the fitted log-normal, stretched to ``scale``."""

        def stretched(rule: Policy) -> Policy:
            return lambda t: scale * rule(t / scale)

        return cls(tuple(measure(stretched(rule), durations, repeats=repeats) for rule in rules))

    def ratio(self, score: Score) -> float:
        """A lag divided by the optimum's at as many polls."""
        pairs = list(zip(self.scores, self.scores[1:], strict=False))
        many, few = next((p for p in pairs if p[1].polls <= score.polls), pairs[-1])
        share = math.log(many.polls / score.polls) / math.log(many.polls / few.polls)
        return score.lag / (many.lag * math.pow(few.lag / many.lag, share))


OTHERS: dict[str, Policy] = {
    "every 5 s": lambda _: 5.0,
    "every 10 s": lambda _: 10.0,
    "every 15 s (vendor's sample)": lambda _: 15.0,
    "every 60 s (Airflow's default)": lambda _: 60.0,
    "exponential 2 s x 1.5 to 30 s": lambda t: min(2.0 + 0.5 * t, 30.0),
    "max(2 s, 5 % of elapsed)": lambda t: max(2.0, 0.05 * t),
}


def optimal_policies() -> list[Policy]:
    """The optimal policies for the fitted log-normal, one a price."""
    horizon = int(USUAL_SECONDS * math.exp(4.2 * USUAL_SPREAD))
    cdf = log_normal_cdf(USUAL_SECONDS, USUAL_SPREAD)
    return [optimum(cdf, price, horizon) for price in PRICES]


def with_quick_failures(share: float, n: int) -> tuple[list[float], Callable[[float], float]]:
    """Durations of which a share fails within seconds, and their distribution."""
    good = log_normal_cdf(USUAL_SECONDS, USUAL_SPREAD)
    quick = log_normal_cdf(QUICK_FAILURE_SECONDS, QUICK_FAILURE_SPREAD)
    failures = log_normal(QUICK_FAILURE_SECONDS, QUICK_FAILURE_SPREAD, round(share * n))
    rest = log_normal(USUAL_SECONDS, USUAL_SPREAD, n - len(failures))
    return sorted(failures + rest), lambda t: share * quick(t) + (1 - share) * good(t)


def learned(
    scale: float, completions: int, seed: int, unwatched: Callable[[random.Random], float] | None = None
) -> Schedule:
    """The schedule of a process that has seen so many completions at a scale nobody told it.

    :param unwatched: draws when nobody looks for an hour, in seconds after a submit; None for never.
    """
    rng, seen, prior = random.Random(seed), DurationStats(), Schedule.adaptive()
    for _ in range(completions):
        duration = scale * USUAL_SECONDS * math.exp(rng.gauss(0.0, USUAL_SPREAD))
        gone = unwatched(rng) if unwatched else math.inf
        elapsed = before = 0.0
        while elapsed < duration:
            before = elapsed
            elapsed += jittered(seen.sharpen("model", prior).next_wait(elapsed), rng.random)
            if gone <= elapsed < gone + 3600.0:
                elapsed = gone + 3600.0
        seen.observe("model", elapsed, not_yet_at=before, prior=prior)
    return seen.sharpen("model", prior)


def mean_score(policies: Sequence[Policy], durations: Sequence[float], start: float = 0.0) -> Score:
    """The mean over policies, as of several processes."""
    scores = [measure(policy, durations, start=start) for policy in policies]
    means = (statistics.fmean(values) for values in zip(*map(astuple, scores), strict=True))
    return Score(*means)


def row(name: str, score: Score, ratio: float) -> str:
    return (
        f"{name:31}{score.polls:7.1f}{score.lag:9.1f}{score.late:9.1f}"
        f"{score.polls * score.lag:10.0f}{ratio:11.2f}"
    )


def compare(title: str, durations: Sequence[float], repeats: int, rules: Sequence[Policy]) -> None:
    """Print one table."""
    frontier = Frontier.of(durations, rules, 1.0, repeats)
    adaptive = Schedule.adaptive().next_wait
    best = frontier.scores[PRICES.index(POLL_PRICE)]
    print(f"\n{title}")
    print(f"{'policy':31}{'polls':>7}{'lag s':>9}{'p95':>9}{'product':>10}{'of optimum':>11}")
    print(row("optimum, who knows them", best, frontier.ratio(best)))
    score = measure(adaptive, durations, start=EARLY_LOOK, repeats=repeats)
    print(row("adaptive, after the early look", score, frontier.ratio(score)))
    score = measure(adaptive, durations, repeats=repeats)
    print(row("adaptive, the early look too", score, frontier.ratio(score)))
    for name, policy in OTHERS.items():
        score = measure(policy, durations, repeats=repeats)
        print(row(name, score, frontier.ratio(score)))


def stretch(n: int, rules: Sequence[Policy]) -> None:
    """Print how the schedule does where real durations are not what it believes."""
    told = Schedule.adaptive().next_wait
    print("\nReal durations are a multiple of what is believed: lag against the optimum that knows")
    print("them (and polls, lag in seconds); the adaptive ones after the early look, and those that")
    print(f"learned as the mean of {PROCESSES} processes, each of which saw other completions")
    print(f"{'multiple':31}" + "".join(f"{scale:18g}" for scale in SCALES))
    lines: dict[str, list[str]] = {}
    for scale in SCALES:
        durations = log_normal(scale * USUAL_SECONDS, USUAL_SPREAD, n)
        frontier = Frontier.of(durations, rules, scale)
        columns = {
            "adaptive": [told],
            "adaptive, 10 completions seen": [learned(scale, 10, i).next_wait for i in range(PROCESSES)],
            "adaptive, 50 completions seen": [learned(scale, 50, i).next_wait for i in range(PROCESSES)],
            "every 15 s": [OTHERS["every 15 s (vendor's sample)"]],
        }
        for name, policies in columns.items():
            start = 0.0 if name.startswith("every") else EARLY_LOOK
            score = mean_score(policies, durations, start)
            cell = f"{frontier.ratio(score):.2f} ({score.polls:.1f}, {score.lag:.1f})"
            lines.setdefault(name, []).append(f"{cell:>18}")
    for name, cells in lines.items():
        print(f"{name:31}" + "".join(cells))


def quick_failures(n: int) -> None:
    """Print what the early look costs and saves."""
    horizon = int(USUAL_SECONDS * math.exp(4.2 * USUAL_SPREAD))
    print(f"\nWith failures after a median of {QUICK_FAILURE_SECONDS:g} s (an assumption):")
    print("price x polls + lag, in seconds a generation")
    print(f"{'share that fails at once':31}" + "".join(f"{s:9.0%}" for s in QUICK_SHARES))
    lines: dict[str, list[str]] = {}
    ratios: list[str] = []
    for share in QUICK_SHARES:
        costs: dict[str, float] = {}
        durations, cdf = with_quick_failures(share, n)
        policies = {
            "optimum, who knows the share": optimum(cdf, POLL_PRICE, horizon),
            "adaptive": Schedule.adaptive().next_wait,
            "adaptive without early look": without_early_look,
            "every 15 s": OTHERS["every 15 s (vendor's sample)"],
        }
        for name, policy in policies.items():
            score = measure(policy, durations)
            costs[name] = POLL_PRICE * score.polls + score.lag
            lines.setdefault(name, []).append(f"{costs[name]:9.1f}")
        ratio = costs["adaptive"] / costs["optimum, who knows the share"]
        ratios.append(f"{ratio:9.2f}")
    lines["adaptive, of optimum"] = ratios
    for name, cells in lines.items():
        print(f"{name:31}" + "".join(cells))


def without_early_look(elapsed: float) -> float:
    if elapsed >= EARLY_LOOK:
        return Schedule.adaptive().next_wait(elapsed)
    return EARLY_LOOK - elapsed + Schedule.adaptive().next_wait(EARLY_LOOK)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--durations", type=int, default=1000, help="size of the log-normal sample")
    n = parser.parse_args().durations
    rules = optimal_policies()
    adaptive = Schedule.adaptive()
    call = min(timeit.repeat(lambda: adaptive.next_wait(150.0), number=20_000, repeat=5)) / 20_000
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}. Waits "
        f"jittered by {JITTER:.0%}, seeded. Price {POLL_PRICE:g} s a poll. "
        f"One next_wait: {call * 1e6:.1f} us."
    )
    title = f"Log-normal, median {USUAL_SECONDS:g} s, sigma {USUAL_SPREAD:g}"
    compare(title, log_normal(USUAL_SECONDS, USUAL_SPREAD, n), 40, rules)
    title = f"The {len(PUBLISHED)} durations on the vendor's pages"
    compare(title, PUBLISHED, 2000, rules)
    stretch(n, rules)
    quick_failures(n)


if __name__ == "__main__":
    main()
