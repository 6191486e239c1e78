"""One task against a model of the vendor: faults, crashes, retries and clears in any order.

The real ``DurableSubmit.submit_or_reattach`` runs one effect at a time. Between any two effects the worker may be
killed: with the pending effect done or not, and nothing after it. The model keeps the account:
which generations the vendor accepted, and how many the user's choices allow.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_kling.api.durable.attempt import TaskAttempt
from airflow_provider_kling.api.durable.decision import SubmitPolicy
from airflow_provider_kling.api.durable.identity import client_request_id, fingerprint
from airflow_provider_kling.api.durable.record import NOTHING
from airflow_provider_kling.api.durable.search import search_logs
from airflow_provider_kling.api.durable.submit import (
    DurableSubmit,
    PendingSearch,
    SubmitResult,
)
from airflow_provider_kling.api.exceptions import KlingError, Money, Recovery, StoppedError
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.redaction import key_mark
from airflow_provider_kling.api.transport.messages import (
    Call,
    Effect,
    FailureReason,
    Flow,
    HttpRequest,
    Reply,
    SaveRecord,
    Send,
    Sleep,
)
from tests.unit.api.driving import Clock, answer, calls, lost, refusal

MODEL = "kling-video/v1.6/standard/text-to-video"
ALIAS = "klingai/v1.6-standard-text-to-video"
"""What a row may name instead of the model that was sent."""
PROMPTS = ("a cat", "a dog")
WORK = TaskAttempt("dag", "run", "task")
OTHER_PASS = client_request_id(
    replace(WORK, loop_index=0), fingerprint({"model": MODEL, "prompt": PROMPTS[0]}, "account"), 0
)
"""What another pass of a loop submitted."""
KEYS = tuple(f"sk-{number}-of-the-same-account" for number in range(4))
STRANGERS_KEY = "sk-in-the-triggerer"
GRACE = 300.0
DAY = 86_400.0
LONGEST_CALL = 60.0
HEARTBEAT = 5.0
STOPPING = HEARTBEAT + LONGEST_CALL
"""Seconds that a process works on at most after its task was cleared."""
PAGE = 2  # rows; small, so that pages are turned

SUBMITS = (
    "accepted",
    "accepted, name dropped from the answer",
    "accepted, unreadable but for the header",
    "accepted, unreadable",
    "accepted, lost",
    "accepted, lost",
    "accepted, 502",
    "not accepted, lost",
    "not accepted, 500",
    "429",
    "429",
    "503",
    "400",
    "dns",
)
POLLS = ("fine", "500", "lost", "unreadable", "404 once", "404", "401")
LOGS = ("fine", "500", "429", "unreadable", "403")
OUTCOMES = ("completed", "completed", "error", "moderation")


@dataclass
class Accepted:
    """A generation at the vendor; it is paid for if its outcome is ``completed``."""

    id: str
    name: str
    prompt: str
    outcome: str
    at: float
    key: str
    done_at: float

    @property
    def paid(self) -> bool:
        return self.outcome == "completed"


@dataclass
class Row:
    """A request in the vendor's logs."""

    name: str | None
    inference_id: str
    created: float
    listed_from: float
    generation: Accepted | None
    model: str
    key: str


@dataclass
class Weather:
    """What the vendor and the network are like for a while.

    :param submits: what becomes of each submit; the last one goes for all that follow.
    :param takes: seconds from a submit to its outcome.
    :param lag: seconds until a request is listed in the logs.
    :param call: seconds that a request is under way before it is accepted.
    :param named: what the rows of the logs call the model.
    """

    submits: tuple[str, ...] = ("accepted",)
    poll: str = "fine"
    logs: str = "fine"
    outcome: str = "completed"
    takes: float = 60.0
    lag: float = 0.0
    call: float = 1.0
    named: str = MODEL

    def next_submit(self) -> str:
        how, *later = self.submits
        self.submits = tuple(later) or (how,)
        return how


def weathers(longest_lag: float) -> st.SearchStrategy[Weather]:
    """Fair, with trouble at the submit only, or with all sorts of trouble."""
    submits = st.lists(st.sampled_from(SUBMITS), min_size=1, max_size=5).map(tuple)
    vendor = {
        "outcome": st.sampled_from(OUTCOMES),
        "takes": st.sampled_from([0.0, 600.0]),
        "lag": st.sampled_from([0.0, longest_lag]),
        "call": st.sampled_from([1.0, LONGEST_CALL]),
        "named": st.sampled_from([MODEL, MODEL, ALIAS]),
    }
    fair = st.builds(Weather, **vendor)
    troubled = st.builds(Weather, submits, **vendor)
    stormy = st.builds(Weather, submits, st.sampled_from(POLLS), st.sampled_from(LOGS), **vendor)
    return st.one_of(fair, troubled, stormy)


class Vendor:
    """Accepts, charges on completion, lists late, forgets nothing."""

    def __init__(self, clock: Clock, skew: float) -> None:
        self.clock = clock
        self.skew = skew
        self.accepted: list[Accepted] = []
        self.rows: list[Row] = []
        self.ids = itertools.count(1)

    def reply(self, request: HttpRequest, weather: Weather) -> Reply:
        """Answer a request; time passes before it arrives, and before the answer does."""
        self.clock.now += weather.call
        if request.call is Call.SUBMIT:
            return self._submit(request, weather)
        if request.call is Call.LOGS:
            return self._logs(request, weather.logs)
        return self._poll(request, weather)

    def _submit(self, request: HttpRequest, weather: Weather) -> Reply:
        body = json.loads(request.body or b"{}")
        key = key_of(request)
        name = request.headers["X-Client-Request-Id"]
        how = weather.next_submit()
        if not how.startswith("accepted"):
            if how != "dns" and not how.startswith("not accepted"):
                self._list(name, f"r{next(self.ids)}", weather, None, key)
            return {
                "not accepted, lost": lost(FailureReason.READ_TIMEOUT),
                "not accepted, 500": refusal(500),
                "dns": lost(FailureReason.DNS),
            }.get(how) or refusal(int(how), retry_after="120")
        now = self.clock.now
        made = Accepted(
            f"g{next(self.ids)}", name, body["prompt"], weather.outcome, now, key, now + weather.takes
        )
        self.accepted.append(made)
        self._list(name, made.id, weather, made, key)
        return {
            "accepted": answer({"id": made.id, "status": "queued"}, 201, x_client_request_id=name),
            "accepted, name dropped from the answer": answer({"id": made.id, "status": "queued"}),
            "accepted, unreadable but for the header": answer(b"<h1>OK</h1>", x_inference_id=made.id),
            "accepted, unreadable": answer(b'{"id": "g'),
            "accepted, lost": lost(FailureReason.BROKEN),
            "accepted, 502": answer(b"<h1>502</h1>", 502),
        }[how]

    def _list(self, name: str, inference_id: str, weather: Weather, made: Accepted | None, key: str) -> None:
        now, listed_from = self.clock.now, self.clock.now + weather.lag
        for neighbour in (None, OTHER_PASS, name):
            mine = inference_id if neighbour == name else "other"
            row = Row(neighbour, mine, now + self.skew, listed_from, made, weather.named, key)
            self.rows.append(row)

    def _poll(self, request: HttpRequest, weather: Weather) -> Reply:
        how, weather.poll = weather.poll, "fine" if weather.poll == "404 once" else weather.poll
        trouble = {
            "500": refusal(500),
            "401": refusal(401),
            "404": refusal(404),
            "404 once": refusal(404),
            "lost": lost(),
            "unreadable": answer(b""),
        }
        if how in trouble:
            return trouble[how]
        asked = dict(request.params)["generation_id"]
        made = next((each for each in self.accepted if each.id == asked), None)
        if made is None:
            return refusal(404)
        if self.clock.now < made.done_at:
            return answer({"id": made.id, "status": "generating"})
        if made.paid:
            return answer({"id": made.id, "status": "completed", "video": {"url": "https://cdn/v.mp4"}})
        failure = {"name": "ModerationError" if made.outcome == "moderation" else "GenerationError"}
        return answer({"id": made.id, "status": "error", "error": {**failure, "message": "no"}})

    def _logs(self, request: HttpRequest, how: str) -> Reply:
        trouble = {
            "500": refusal(500),
            "429": refusal(429),
            "403": refusal(403),
            "unreadable": answer({"data": [5]}),
        }
        if how in trouble:
            return trouble[how]
        asked = dict(request.params)
        start, end = (datetime.fromisoformat(asked[name]).timestamp() for name in ("start", "end"))
        models = [value for name, value in request.params if name == "model"]
        assert models in ([MODEL], [])
        assert start <= end
        listed = [
            row
            for row in reversed(self.rows)
            if row.listed_from <= self.clock.now
            and start <= row.created <= end
            and row.key == key_of(request)
            and (not models or row.model in models)
        ]
        offset = int(asked["offset"])
        page = [
            {
                "client_request_id": row.name,
                "inference_id": row.inference_id,
                "status": "succeeded" if self._succeeded(row) else "failed",
            }
            for row in listed[offset : offset + PAGE]
        ]
        more = len(listed) > offset + PAGE
        return answer({"data": page, "pagination": {"has_more": more}})

    def _succeeded(self, row: Row) -> bool:
        made = row.generation
        return made is not None and (made.paid or self.clock.now < made.done_at)


def key_of(request: HttpRequest) -> str:
    return request.headers["Authorization"].removeprefix("Bearer ")


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    """Thousands of tries have much to say."""
    logger = logging.getLogger("airflow_provider_kling")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


POINTS = ("submit", "remember intent", "remember id", "logs", "poll", "any")


def point_of(effect: Effect) -> str:
    """The effect's name among :data:`POINTS`."""
    if isinstance(effect, Send):
        return str(effect.request.call)
    if isinstance(effect, SaveRecord):
        return "remember id" if effect.record.get("generation_id") else "remember intent"
    return "sleep"


class OneTask(RuleBasedStateMachine):
    """A task instance through all its tries."""

    remembers: ClassVar[bool] = True
    """Whether there is a store at all."""
    forgets: ClassVar[bool] = False
    """Whether the store may be empty when a cleared task begins, or a loop's pass has a new one."""
    rotates: ClassVar[bool] = True
    elsewhere: ClassVar[bool] = False
    """Whether somebody else searches the logs: the triggerer."""
    renumbers: ClassVar[bool] = False
    """Whether a clear of the run gives it a new task instance, as to a loop's later pass."""
    replaces: ClassVar[bool] = False
    """Whether a clear after an upgrade, days later, does."""
    longest_lag: ClassVar[float] = GRACE - LONGEST_CALL - 1
    """Seconds until a request is listed, at most; within the grace, nothing is ever paid twice."""

    work: ClassVar[TaskAttempt] = WORK

    @initialize(
        on_changed_request=st.sampled_from(["submit", "fail"]),
        on_uncertain_submit=st.sampled_from(["resubmit", "fail"]),
        on_clear=st.sampled_from(["reuse", "regenerate"]),
        skew=st.floats(-800, 800),
        stranger=st.booleans(),
    )
    def begin(
        self,
        on_changed_request: Any,
        on_uncertain_submit: Any,
        on_clear: Any,
        skew: float,
        stranger: bool = False,
    ) -> None:
        self.clock = Clock()
        self.began = self.clock.now
        self.policy = SubmitPolicy(on_changed_request, on_uncertain_submit, on_clear, GRACE)
        self.vendor = Vendor(self.clock, skew)
        self.store: Any = None
        self.stranger = stranger
        """Whether the triggerer reads another key in its connection than the workers do."""
        self.keys = iter(KEYS)
        self.key = next(self.keys)
        self.blind = False
        """Whether the store forgot of a submit that was made with another key: nobody can know of it."""
        self.tries = 0
        self.first_try = 1
        self.renumbered = False
        self.prompt = PROMPTS[0]
        self.asked_before: str | None = None
        self.allowed = dict.fromkeys(PROMPTS, 1)
        self.ended_at = self.clock.now
        self.may_retry = False
        self.flow: Flow[SubmitResult] | None = None
        self.pending: Effect | None = None
        self.accepted_before = 0
        self.tried = self.unsure = self.unknown = self.emptied = False
        """Whether this try came to a submit, whether the fate of one can be unknown to the task, and
        whether the vendor denied a generation that it has."""

    # A try

    @precondition(lambda self: self.rotates and self.flow is None)
    @rule()
    def rotate_key(self) -> None:
        """The connection gets another key of the same account."""
        self.key = next(self.keys, self.key)

    @precondition(lambda self: self.flow is None)
    @rule(cleared=st.booleans(), prompt=st.sampled_from(PROMPTS), forget=st.booleans())
    def start(self, cleared: bool, prompt: str, forget: bool = False) -> None:
        """Airflow runs the task: for the first time, again by itself, or because a person cleared it."""
        self.tries += 1
        if self.tries > 1 and (cleared or not self.may_retry):
            self.first_try = self.tries
            self.prompt = prompt
            if self.forgets and forget:
                self.store = None
                self.asked_before = None
            if (self.renumbers or self.replaces) and forget:
                self.tries = self.first_try = 1
                self.renumbered = True
                self.clock.now += 2 * DAY if self.replaces else 0.0
            if self.policy.on_clear == "regenerate":
                self.allowed[prompt] += 1
        if self.remembers and self.tries == 1 and self.store is None and not self.renumbered:
            self.store = dict(NOTHING)  # what a task records before anything else
        self.blind |= self.store is None and any(made.key != self.key for made in self.vendor.accepted)
        if self.remembers and self.asked_before not in (None, self.prompt):
            self.allowed[self.prompt] += self.policy.on_changed_request == "submit"
        self.asked_before = self.prompt
        replaced = self.renumbered and self.replaces and self.tries == 1
        asked = GenerationRequest(MODEL, {"prompt": self.prompt})
        submit = DurableSubmit(
            calls(self.clock, key=self.key),
            replace(asked, fingerprint=fingerprint(asked.body(), "account")),
            replace(
                self.work,
                number=self.tries,
                first_number=self.first_try,
                previous_since=self.began,
                previous_until=self.clock.now - DAY if replaced else self.ended_at,
                renumbered=self.renumbered and self.renumbers,
                replaced=replaced,
            ),
            self.policy,
        )
        self.accepted_before = len(self.vendor.accepted)
        self.tried = self.emptied = False
        self.flow = self._attempt(submit)
        self._go_on(None)

    def _attempt(self, submit: DurableSubmit) -> Flow[SubmitResult]:
        """One attempt, from one process to the next where another one searches."""
        answer = None
        while True:
            submit = replace(submit, calls=calls(self.clock, key=self.key))
            result = yield from submit.submit_or_reattach(self.store, elsewhere=self.elsewhere, answer=answer)
            if isinstance(result, SubmitResult):
                return result
            pending = PendingSearch.from_dict(json.loads(json.dumps(result.as_dict())))
            assert pending == result
            key = STRANGERS_KEY if self.stranger else self.key
            row = yield from search_logs(calls(self.clock, key=key), pending.search)
            told = replace(pending, row=row, key_mark=key_mark(key, pending.salt))
            answer = PendingSearch.from_dict(json.loads(json.dumps(told.as_dict())))
            assert answer == told

    @precondition(lambda self: self.pending is not None)
    @rule(data=st.data(), effects=st.integers(1, 5))
    def go(self, data: st.DataObject, effects: int) -> None:
        """Some effects are done."""
        weather = data.draw(weathers(self.longest_lag))
        for _ in range(effects):
            if self.pending is not None:
                self._go_on(self._do(self.pending, weather))

    @precondition(lambda self: self.pending is not None)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """The try goes on to its end."""
        weather = data.draw(weathers(self.longest_lag))
        while self.pending is not None:
            self._go_on(self._do(self.pending, weather))

    @precondition(lambda self: self.pending is not None)
    @rule(data=st.data(), point=st.sampled_from(POINTS), done=st.booleans())
    def crash(self, data: st.DataObject, point: str, done: bool) -> None:
        """The worker is killed when it comes to some effect, which may still be done."""
        weather = data.draw(weathers(self.longest_lag))
        while self.pending is not None and point not in ("any", point_of(self.pending)):
            self._go_on(self._do(self.pending, weather))
        if self.pending is not None:
            if done:
                self._do(self.pending, weather)
            self._kill()

    @precondition(lambda self: self.pending is not None)
    @rule(data=st.data(), effects=st.integers(0, 3), forget=st.booleans())
    def clear_while_it_runs(self, data: st.DataObject, effects: int, forget: bool) -> None:
        """A person clears the task: its process works on until its next heartbeat, also on a request."""
        weather = data.draw(weathers(self.longest_lag))
        cleared_at = self.clock.now
        if self.forgets and forget:
            self.store = self.asked_before = None
            self.emptied = True
        for _ in range(effects):
            if self.pending is not None and self.clock.now <= cleared_at + HEARTBEAT:
                if isinstance(self.pending, Sleep) and self.pending.seconds > HEARTBEAT:
                    break
                self._go_on(self._do(self.pending, weather))
        if self.pending is not None:
            self._kill()
        self.ended_at = min(self.clock.now, cleared_at + STOPPING)
        self.may_retry = False

    @precondition(lambda self: self.flow is None and self.tries > 0)
    @rule(seconds=st.sampled_from([30.0, 300.0, 2000.0]))
    def wait(self, seconds: float) -> None:
        """Time passes between tries."""
        self.clock.now += seconds

    def _do(self, effect: Effect, weather: Weather) -> Reply:
        if isinstance(effect, Sleep):
            self.clock.now += effect.seconds
        elif isinstance(effect, SaveRecord):
            self.tried |= not effect.record.get("generation_id")
            if self.remembers:
                self.store = dict(effect.record)
        elif effect.request.call is Call.SUBMIT:
            self._check_before_submit(effect)
            how = weather.submits[0]
            self.unsure |= how.startswith("not accepted") or how.endswith(("unreadable", "lost", "502"))
            return self.vendor.reply(effect.request, weather)
        else:
            self.unknown |= weather.poll in ("404", "401")  # also a 404 that follows two 401
            return self.vendor.reply(effect.request, weather)
        return None

    def _check_before_submit(self, effect: Send) -> None:
        if self.remembers and not self.emptied:
            assert self.store["client_request_id"] == effect.request.headers["X-Client-Request-Id"]
            assert self.store["generation_id"] is None
            assert self.clock.now - self.store["intended_at"] <= 1e-6

    def _go_on(self, reply: Reply) -> None:
        assert self.flow is not None
        try:
            self.pending = self.flow.send(reply)
        except StopIteration as end:
            self._check_result(end.value)
            self._end(may_retry=True)  # waiting for the video, or landing it, may still fail
        except KlingError as error:
            self._check_error(error)
            self._end(may_retry=error.recovery is not Recovery.GIVE_UP)

    def _kill(self) -> None:
        assert self.flow is not None
        self.unsure |= self.tried
        self.flow.close()
        self._end(may_retry=True)

    def _end(self, may_retry: bool) -> None:
        self.flow = self.pending = None
        self.may_retry = may_retry
        self.ended_at = self.clock.now

    # What must hold

    def paid(self, prompt: str) -> list[Accepted]:
        return [made for made in self.vendor.accepted if made.paid and made.prompt == prompt]

    @property
    def strict(self) -> bool:
        """Whether the logs are quick enough, or the user careful enough, for at most one payment."""
        if self.blind:
            return False
        quick = self.longest_lag + LONGEST_CALL < GRACE
        keeps = self.remembers and not self.forgets
        return quick or (keeps and self.policy.on_uncertain_submit == "fail")

    @invariant()
    def each_identity_is_paid_once(self) -> None:
        if not hasattr(self, "vendor") or not self.strict:
            return
        for prompt in PROMPTS:
            assert len(self.paid(prompt)) <= self.allowed[prompt], self.vendor.accepted
        if self.forgets:
            return  # a request that was asked for, changed and asked for again may have its first name again
        names = [made.name for made in self.vendor.accepted]
        assert len(set(names)) == len(names), names

    def _check_result(self, obtained: SubmitResult) -> None:
        made = {each.id: each for each in self.vendor.accepted}
        result = made[obtained.generation_id]
        assert result.prompt == self.prompt
        assert result.name == obtained.record.client_request_id
        if self.remembers and not self.emptied:
            assert self.store == obtained.record.encode()
        if obtained.reattached:
            assert obtained.generation is not None
        if self.strict:
            paid = self.paid(self.prompt)
            assert not paid or result.at >= paid[-1].at, (result, self.vendor.accepted)
            assert not paid or result.paid or self.allowed[self.prompt] > 1

    def _check_error(self, error: KlingError) -> None:
        new = self.vendor.accepted[self.accepted_before :]
        if error.money is Money.NOT_SPENT:
            assert not new
        if isinstance(error, StoppedError):
            assert not new or self.unsure
            if "API key" in error.what:
                assert self.unsure
                assert self.key != KEYS[0]
            elif "on_uncertain_submit" in error.what:
                assert self.policy.on_uncertain_submit == "fail"
                assert self.unsure or self.forgets or not self.remembers
            elif "on_changed_request" in error.what:
                assert self.policy.on_changed_request == "fail"
            elif "does not know" in error.what:
                assert self.unknown
            else:
                assert "not charged" in error.what

    def teardown(self) -> None:
        """In the end, with a healthy vendor, whatever was paid for is had."""
        if not hasattr(self, "vendor"):
            return
        if self.flow is not None:
            self._kill()
        self.clock.now += 10_000.0
        if self.tries == 0 or not self.strict:
            return
        for _ in range(2):
            self.start(cleared=not self.may_retry, prompt=self.prompt)
            while self.pending is not None:
                self._go_on(self._do(self.pending, Weather()))
            if self.may_retry:
                return
        # Only a choice of the user leaves it without a video, or a key that was changed meanwhile.
        chosen = "fail" in (self.policy.on_changed_request, self.policy.on_uncertain_submit)
        assert chosen or self.key != KEYS[0]


class ForgetfulTask(OneTask):
    """Airflow before 3.3: nothing is remembered between attempts."""

    remembers = False


class EmptiedStore(OneTask):
    """Airflow 3.4, and 3.3 with clear_on_success: a clear may find the store empty."""

    forgets = True


class SearchedElsewhere(OneTask):
    """A deferrable task: the triggerer searches, and another process continues."""

    elsewhere = True


class ForgetfulAndSearchedElsewhere(OneTask):
    """The same without a store: all that is known travels with the trigger."""

    remembers = False
    elsewhere = True


class LoopPass(OneTask):
    """A pass of a loop (Airflow 3.4): clearing the run begins it anew, with attempt 1 and an empty store."""

    forgets = True
    renumbers = True
    work = replace(WORK, loop_index=1)


class ReplacedMappedTask(OneTask):
    """A mapped task that ran before an upgrade to Airflow 3.4: a clear begins it anew, as its first attempt."""

    forgets = True
    replaces = True
    work = replace(WORK, map_index=3)


class LateLogs(OneTask):
    """Logs that lag longer than the grace."""

    longest_lag = 5000.0


class ForgetfulWithLateLogs(OneTask):
    remembers = False
    longest_lag = 5000.0


TestOneTask = OneTask.TestCase
TestForgetfulTask = ForgetfulTask.TestCase
TestEmptiedStore = EmptiedStore.TestCase
TestSearchedElsewhere = SearchedElsewhere.TestCase
TestForgetfulAndSearchedElsewhere = ForgetfulAndSearchedElsewhere.TestCase
TestLoopPass = LoopPass.TestCase
TestReplacedMappedTask = ReplacedMappedTask.TestCase
TestLateLogs = LateLogs.TestCase
TestForgetfulWithLateLogs = ForgetfulWithLateLogs.TestCase

examples = settings.default.max_examples  # type: ignore[union-attr]  # a profile is loaded
for machine in (TestOneTask, TestForgetfulTask, TestEmptiedStore):
    machine.settings = settings(max_examples=examples, stateful_step_count=25)
for machine in (
    TestSearchedElsewhere,
    TestForgetfulAndSearchedElsewhere,
    TestLoopPass,
    TestReplacedMappedTask,
):
    machine.settings = settings(max_examples=examples, stateful_step_count=25)
for machine in (TestLateLogs, TestForgetfulWithLateLogs):
    machine.settings = settings(max_examples=examples // 2, stateful_step_count=25)
del machine
