"""The vendor's bookkeeping, against a model that is simpler than it."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from airflow_provider_kling.api.catalog.models import find_model
from airflow_provider_kling.emulator.clock import Clock
from airflow_provider_kling.emulator.faults.directives import Directives, GenerationOutcome
from airflow_provider_kling.emulator.options import EmulatorOptions, IdStyle
from airflow_provider_kling.emulator.prices import Price
from airflow_provider_kling.emulator.state import Stage, StoredGeneration, VendorState
from airflow_provider_kling.emulator.vendor import GENERATION_ID_FORM, Refusal

MODEL = find_model("kling-video/v1.6/standard/image-to-video")


def make_state(**options: object) -> VendorState:
    clock = Clock(frozen=True, start=1_000_000.0)
    return VendorState(EmulatorOptions(seed=1, **options), clock)


def accept(
    state: VendorState,
    outcome: GenerationOutcome = GenerationOutcome.COMPLETE,
    usd: float = 1.0,
    **directives: object,
) -> StoredGeneration:
    key = next(iter(state.keys.values()))
    assert MODEL is not None
    generation = state.accept(
        key,
        MODEL,
        {},
        price=Price(usd),
        seconds=5,
        client_request_id=None,
        directives=Directives(outcome, **directives),
    )
    generation.media_ready = generation.accepted_at
    return generation


@pytest.mark.parametrize(
    ("outcome", "after", "stage"),
    [
        (GenerationOutcome.COMPLETE, 0.0, Stage.QUEUED),
        (GenerationOutcome.COMPLETE, 0.99, Stage.QUEUED),
        (GenerationOutcome.COMPLETE, 1.0, Stage.GENERATING),
        (GenerationOutcome.COMPLETE, 5.99, Stage.GENERATING),
        (GenerationOutcome.COMPLETE, 6.0, Stage.COMPLETED),
        (GenerationOutcome.MODERATION, 0.5, Stage.QUEUED),
        (GenerationOutcome.MODERATION, 1.0, Stage.ERROR),
        (GenerationOutcome.FAIL, 5.9, Stage.GENERATING),
        (GenerationOutcome.FAIL, 6.0, Stage.ERROR),
        (GenerationOutcome.STALL, 1e6, Stage.GENERATING),
    ],
)
def test_the_stage_follows_the_clock(outcome: GenerationOutcome, after: float, stage: Stage):
    state = make_state()
    generation = accept(state, outcome)
    assert generation.stage(1_000_000.0 + after) is stage


def test_pictures_that_take_long_delay_the_end():
    state = make_state()
    generation = accept(state)
    generation.media_ready = None
    assert generation.stage(1_000_100.0) is Stage.GENERATING
    generation.media_ready = 1_000_100.0
    assert generation.stage(1_000_100.0) is Stage.COMPLETED


def test_a_picture_that_cannot_be_had_is_an_error_and_free():
    state = make_state()
    generation = accept(state)
    generation.media_ready, generation.media_problem = 1_000_000.5, "gone"
    state.settle(1_000_100.0)
    assert generation.stage(1_000_100.0) is Stage.ERROR
    assert state.charges == 0
    assert generation.account.held == 0


def test_the_charge_is_booked_after_completed_with_its_lag():
    state = make_state(charge_lag=10.0)
    generation = accept(state, usd=2.5)
    state.settle(1_000_015.9)
    assert generation.account.balance == 1000.0
    state.settle(1_000_016.0)
    state.settle(1_000_099.0)
    assert generation.account.balance == 997.5
    assert [charge.reference_id for charge in generation.account.charges] == [generation.id]
    assert generation.charged_at == 1_000_016.0


def test_held_money_cannot_be_spent_twice_and_comes_back_after_a_failure():
    state = make_state(balance=1.5)
    accept(state, GenerationOutcome.FAIL, usd=1.0)
    with pytest.raises(Refusal) as refused:
        accept(state, usd=1.0)
    assert refused.value.status == 403
    state.clock.advance(100)
    accept(state, usd=1.0)


@pytest.mark.parametrize(
    ("style", "example"),
    [
        (IdStyle.NANO, r"[A-Za-z0-9_-]{21}"),
        (IdStyle.UUID, r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        (IdStyle.UUID_MODEL, r"[0-9a-f-]{36}:kling-video/v1\.6/standard/image-to-video"),
    ],
)
def test_ids_look_like_the_vendors_and_repeat_with_the_seed(style: IdStyle, example: str):
    import re

    ids = [accept(make_state(ids=style)).id for _ in range(2)]
    assert re.fullmatch(example, ids[0])
    assert GENERATION_ID_FORM.fullmatch(ids[0])
    assert ids[0] == ids[1]
    unseeded = VendorState(EmulatorOptions(ids=style), Clock())
    assert unseeded.new_id() != unseeded.new_id()


def test_realistic_takes_the_models_usual_time_and_spread_varies_it():
    assert MODEL is not None
    generation = accept(make_state(realistic=True))
    assert generation.due - generation.accepted_at == pytest.approx(MODEL.usual_seconds)
    state = make_state(realistic=True, spread=0.5)
    taken = {accept(state, usd=0.01).due for _ in range(50)}
    assert len(taken) == 50


class Bookkeeping(RuleBasedStateMachine):
    """Whatever is submitted, in whatever order time passes and books are read."""

    def __init__(self) -> None:
        super().__init__()
        self.state = make_state(balance=50.0, charge_lag=2.0)
        (self.account,) = (key.account for key in self.state.keys.values())
        self.made: list[StoredGeneration] = []

    @rule(
        outcome=st.sampled_from(list(GenerationOutcome)),
        cents=st.integers(1, 900),
        generating=st.floats(0, 30),
    )
    def submit(self, outcome: GenerationOutcome, cents: int, generating: float) -> None:
        usd = cents / 100
        free = self.account.balance - self.account.held
        try:
            made = accept(self.state, outcome, usd, generating_seconds=generating)
        except Refusal:
            assert free < usd + 1e-6
        else:
            self.made.append(made)

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.state.clock.advance(seconds)

    @invariant()
    def books_are_right(self) -> None:
        now = self.state.clock.now()
        self.state.settle(now)
        paid = [
            g for g in self.made if g.directives.outcome is GenerationOutcome.COMPLETE and now >= g.due + 2.0
        ]
        ended = [
            *paid,
            *(g for g in self.made if g.directives.outcome is GenerationOutcome.FAIL and now >= g.due),
            *(
                g
                for g in self.made
                if g.directives.outcome is GenerationOutcome.MODERATION and now >= g.queued_until
            ),
        ]
        assert sorted(c.reference_id for c in self.account.charges) == sorted(g.id for g in paid)
        spent = sum(g.price.usd for g in paid)
        held = sum(g.price.usd for g in self.made if g not in ended)
        assert self.account.balance == pytest.approx(50.0 - spent, abs=1e-6)
        assert self.account.held == pytest.approx(held, abs=1e-6)
        assert self.account.balance > -1e-6


Bookkeeping.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestBookkeeping = Bookkeeping.TestCase
