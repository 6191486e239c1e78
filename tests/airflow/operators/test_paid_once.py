"""A generation is paid once, in real Airflow: retries, clears, edited DAGs, mapped tasks, ``dag.test()``."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from airflow_provider_kling.api.durable.record import NOTHING
from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.real_airflow import REMEMBERS, VERSION, RealAirflow

TEXT_MODEL = "kling-video/v1.6/standard/text-to-video"
IMAGE_MODEL = "kling-video/v1.6/standard/image-to-video"
RECORD = "kling_generation"

needs_memory = pytest.mark.skipif(not REMEMBERS, reason="the task state store is new in Airflow 3.3")
each_wait = pytest.mark.parametrize(
    "wait",
    ["deferrable=False, poke_interval=1", "deferrable=True, poke_interval=5"],
    ids=["blocking", "deferred"],
)


def generate(prompt: str = "A boat.", arguments: str = "") -> str:
    return (
        f'KlingGenerateOperator(task_id="generate", model="{TEXT_MODEL}", prompt="{prompt}",'
        f" retries=2, retry_delay=timedelta(hours=1), uncertain_grace=1, {arguments})"
    )


def only(vendor: EmulatorThread) -> dict[str, Any]:
    """The one generation that was accepted."""
    (generation,) = vendor.generations
    return generation


class TestRetry:
    @each_wait
    def test_a_wait_that_failed_is_taken_up_again(
        self, airflow: RealAirflow, vendor: EmulatorThread, wait: str
    ) -> None:
        body = generate("A boat. [emulator: slow=3600]", f"wait_for_completion=True, timeout=1, {wait}")
        run = airflow.run(body)
        assert run["generate"].state == "up_for_retry"

        vendor.clock.advance(3700)
        run.go_on()

        assert run.state == "success"
        assert run["generate"].tries == 2
        assert run["generate"].xcom["return_value"] == only(vendor)["id"]
        assert run["generate"].xcom["client_request_id"] == only(vendor)["client_request_id"]
        assert "no further cost" in run.log
        assert vendor.stats["charges"] == 1

    def test_an_answer_that_was_lost_is_found_in_the_logs(
        self, airflow: RealAirflow, vendor: EmulatorThread
    ) -> None:
        """In the very same try: the vendor accepted, and the connection broke."""
        vendor.faults.add("submit", "reset-after")
        run = airflow.run(generate())

        assert run.state == "success"
        assert run["generate"].tries == 1
        assert run["generate"].xcom["return_value"] == only(vendor)["id"]
        assert "Found submit" in run.log

    @pytest.mark.parametrize("fault", ["reset-after", "reset-before", "html"])
    def test_no_worker_waits_for_an_answer_that_was_lost(
        self, airflow: RealAirflow, vendor: EmulatorThread, fault: str
    ) -> None:
        """Whether it was accepted is searched for in the triggerer; the same attempt goes on."""
        vendor.faults.add("submit", fault)
        run = airflow.run(generate(arguments="deferrable=True, wait_for_completion=True, poke_interval=5"))

        assert run.state == "success"
        assert run["generate"].tries == 1
        assert run["generate"].xcom["return_value"] == only(vendor)["id"]
        assert "Searching the vendor's request log in the triggerer" in run.log
        found = fault == "reset-after"
        assert ("Found submit" in run.log) is found
        assert ("on_uncertain_submit='resubmit'" in run.log) is not found

    @needs_memory
    def test_a_try_that_died_after_the_submit_is_found_in_the_logs(
        self, airflow: RealAirflow, vendor: EmulatorThread
    ) -> None:
        """The logs fail too, until the next try."""
        vendor.faults.add("submit", "reset-after")
        vendor.faults.add("logs", 403, times=100)
        run = airflow.run(generate())
        assert run["generate"].state != "success"
        record = run["generate"].remembered[RECORD]
        assert record["generation_id"] is None
        assert record["client_request_id"] == only(vendor)["client_request_id"]

        vendor.faults.clear()
        run.clear("generate").go_on()

        assert run.state == "success"
        assert run["generate"].xcom["return_value"] == only(vendor)["id"]

    def test_a_submit_that_never_arrived_is_made_again(
        self, airflow: RealAirflow, vendor: EmulatorThread
    ) -> None:
        vendor.faults.add("submit", "reset-before")
        run = airflow.run(generate())

        assert run.state == "success"
        assert run["generate"].tries == 1
        assert "on_uncertain_submit='resubmit'" in run.log
        assert only(vendor)["id"] == run["generate"].xcom["return_value"]

    def test_or_not_where_the_user_does_not_want_that(
        self, airflow: RealAirflow, vendor: EmulatorThread
    ) -> None:
        vendor.faults.add("submit", "reset-before")
        run = airflow.run(generate(arguments='on_uncertain_submit="fail"'))

        assert run["generate"].state == "failed"
        assert run["generate"].tries == 1
        assert "on_uncertain_submit='fail'" in run.log
        assert vendor.generations == []

    @needs_memory
    def test_a_generation_that_failed_is_resubmitted_by_a_clear(
        self, airflow: RealAirflow, vendor: EmulatorThread
    ) -> None:
        """Nobody is charged for a failure; the two submits carry different names."""
        text = generate("A boat. [emulator: moderation]", "wait_for_completion=True, poke_interval=1")
        run = airflow.run(text)
        assert run["generate"].state == "failed"

        run.rewrite(**{"[emulator: moderation]": ""}).clear("generate").go_on()

        assert run.state == "success"
        assert len({each["client_request_id"] for each in vendor.generations}) == 2
        assert vendor.stats["charges"] == 1

    @needs_memory
    def test_a_prompt_that_renders_differently_in_each_attempt_is_not_paid_for_again(
        self, airflow: RealAirflow, vendor: EmulatorThread
    ) -> None:
        """What changed is told, and submitted when a person clears the task."""
        body = generate(
            "Boat {{ ti.try_number }}.",
            "post_execute=lambda context, result: 1 // max(0, context['ti'].try_number - 2)",
        )
        run = airflow.run(body)
        assert run["generate"].state == "up_for_retry"

        run.go_on()
        assert run["generate"].tries == 2
        assert "The request of this retry differs (changed: prompt)" in run.log
        assert run["generate"].xcom["generation_id"] == only(vendor)["id"]

        run.clear("generate").go_on()
        assert run.state == "success"
        assert [each["parameters"]["prompt"] for each in vendor.generations] == ["Boat 1.", "Boat 3."]


class TestEmptiedStore:
    """Airflow 3.4 empties the task's store on a clear, 3.3 on success where it is told to."""

    @needs_memory
    def test_a_success_without_a_record_is_found_in_the_logs(
        self, airflow: RealAirflow, vendor: EmulatorThread
    ) -> None:
        run = airflow.run(generate(), AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS="True")
        assert run.state == "success"
        assert RECORD not in run["generate"].remembered

        run.clear("generate").go_on()

        assert run.state == "success"
        assert run["generate"].xcom["return_value"] == only(vendor)["id"]
        assert "There is no record of what previous attempts submitted" in run.log
        assert "paid for; using it" in run.log

    @needs_memory
    def test_an_attempt_that_failed_before_the_submit_leaves_a_record(
        self, airflow: RealAirflow, vendor: EmulatorThread
    ) -> None:
        """So that its retry need not search the logs."""
        run = airflow.run(generate(arguments='image="/no/such.jpg"').replace(TEXT_MODEL, IMAGE_MODEL))
        assert run["generate"].state != "success"
        assert run["generate"].remembered[RECORD] == dict(NOTHING)
        assert vendor.generations == []


class TestClear:
    @needs_memory
    def test_a_success_is_reused(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        run = airflow.run(generate())
        run.clear("generate").go_on()

        assert run.state == "success"
        assert run["generate"].tries == 2
        assert run["generate"].xcom["return_value"] == only(vendor)["id"]
        assert "paid for; using it" in run.log
        assert "on_clear='regenerate'" in run.log

    def test_or_made_again(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        run = airflow.run(generate(arguments='on_clear="regenerate"'))
        first = run["generate"].xcom["return_value"]
        run.clear("generate").go_on()

        assert run.state == "success"
        assert [each["id"] for each in vendor.generations] == [first, run["generate"].xcom["return_value"]]
        assert len({each["client_request_id"] for each in vendor.generations}) == 2

    def test_what_is_still_working_is_waited_for(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        """Whatever on_clear says: it is about what is completed."""
        run = airflow.run(generate("A boat. [emulator: slow=3600]", 'on_clear="regenerate"'))
        run.clear("generate").go_on()

        assert run["generate"].xcom["return_value"] == only(vendor)["id"]
        assert "waiting for it" in run.log

    @needs_memory
    def test_a_changed_prompt_is_another_request(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        run = airflow.run(generate("A boat."))
        run.rewrite(**{"A boat.": "A ship."}).clear("generate").go_on()

        assert run.state == "success"
        assert [each["parameters"]["prompt"] for each in vendor.generations] == ["A boat.", "A ship."]
        assert "(changed: prompt)" in run.log
        assert run["generate"].xcom["return_value"] == vendor.generations[1]["id"]

    @needs_memory
    def test_or_a_mistake(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        run = airflow.run(generate("A boat.", 'on_changed_request="fail"'))
        run.rewrite(**{"A boat.": "A ship."}).clear("generate").go_on()

        assert run["generate"].state == "failed"
        assert "(changed: prompt)" in run.log
        assert f"KlingGenerationSensor(generation_id='{only(vendor)['id']}')" in run.log

    def test_an_automatic_retry_is_no_clear(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        """A try that failed after its generation was completed: the retry uses it."""
        fails_once = "post_execute=lambda context, result: 1 / (context['ti'].try_number - 1)"
        run = airflow.run(
            generate(arguments=f'on_clear="regenerate", wait_for_completion=True, {fails_once}')
        )
        assert run["generate"].state == "up_for_retry"

        run.go_on()

        assert run.state == "success"
        assert run["generate"].xcom["return_value"] == only(vendor)["id"]

    def test_each_run_has_its_own(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        first = airflow.run(generate(), dag={"dag_id": "twice"})
        second = airflow.run(generate(), dag={"dag_id": "twice"})

        assert first.run_id != second.run_id
        assert len({each["client_request_id"] for each in vendor.generations}) == 2


class TestWithoutMemory:
    """What Airflow before 3.3 does, and ``durable=False``."""

    @pytest.mark.skipif(REMEMBERS, reason="this Airflow remembers")
    def test_a_retry_looks_in_the_logs(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        run = airflow.run(
            generate("A boat. [emulator: slow=3600]", "wait_for_completion=True, timeout=1, poke_interval=1")
        )
        assert run["generate"].state == "up_for_retry"
        vendor.clock.advance(3700)
        run.go_on()

        assert run.state == "success"
        assert run["generate"].xcom["return_value"] == only(vendor)["id"]
        assert "searching the vendor's request log" in run.log

    def test_durable_false_pays_for_each_try(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        run = airflow.run(generate(arguments="durable=False"))
        assert run["generate"].remembered == {}
        run.clear("generate").go_on()

        assert run.state == "success"
        assert len(vendor.generations) == 2
        assert "durable=False" in run.log


class TestRecord:
    """What is kept in Airflow's task state store."""

    pytestmark = needs_memory

    def test_it_says_what_was_submitted(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        run = airflow.run(generate())

        record = run["generate"].remembered[RECORD]
        assert record["schema"] == 1
        assert record["generation_id"] == only(vendor)["id"]
        assert record["client_request_id"] == only(vendor)["client_request_id"]
        assert record["model"] == TEXT_MODEL
        assert record["count"] == 0
        assert "A boat" not in str(record)

    @pytest.mark.parametrize(
        ("record", "said"),
        [
            ({"schema": 99}, ["schema 99", "reads up to 1"]),
            ({"schema": 1, "work": 5}, ["damaged"]),
            ("text", ["cannot be read"]),
        ],
    )
    def test_one_that_cannot_be_read_stops_the_task(
        self, airflow: RealAirflow, vendor: EmulatorThread, record: Any, said: list[str]
    ) -> None:
        run = airflow.run(generate())
        airflow.ask(
            "put_in_state_store", {}, dag_id=run.dag_id, run_id=run.run_id, task_id="generate", value=record
        )
        run.clear("generate").go_on()

        assert run["generate"].state == "failed"
        assert run["generate"].tries == 2
        assert "nothing was submitted" in run.log
        for words in said:
            assert words in run.log
        only(vendor)

    def test_one_of_another_task_is_left_alone(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        """As after a database was restored or copied: this task's own submit is looked for instead."""
        run = airflow.run(generate())
        record = {
            **run["generate"].remembered[RECORD],
            "identity": "somebody else's",
            "generation_id": "theirs",
        }
        airflow.ask(
            "put_in_state_store", {}, dag_id=run.dag_id, run_id=run.run_id, task_id="generate", value=record
        )
        run.clear("generate").go_on()

        assert run.state == "success"
        assert "belongs to another task" in run.log
        assert run["generate"].xcom["return_value"] == only(vendor)["id"]

    def test_a_generation_that_the_vendor_does_not_know_stops_the_task(
        self, airflow: RealAirflow, vendor: EmulatorThread
    ) -> None:
        run = airflow.run(generate())
        vendor.reset()
        run.clear("generate").go_on()

        assert run["generate"].state == "failed"
        assert "The vendor does not know generation" in run.log
        assert "durable=False" in run.log
        assert vendor.generations == []


@needs_memory
def test_mapped_tasks_remember_each_for_itself(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    body = generate().replace("KlingGenerateOperator(", "KlingGenerateOperator.partial(")
    body = body.replace('prompt="A boat.",', "")
    run = airflow.run(f'{body}.expand(prompt=["one", "two [emulator: stall]", "three"])')
    ids = {index: run[f"generate[{index}]"].xcom["return_value"] for index in range(3)}
    assert len(set(ids.values())) == 3

    run.clear("generate").go_on()

    assert {index: run[f"generate[{index}]"].xcom["return_value"] for index in range(3)} == ids
    assert [run[f"generate[{index}]"].tries for index in range(3)] == [2, 2, 2]
    assert len(vendor.generations) == 3
    for index in range(3):
        assert f":{index}:" in run[f"generate[{index}]"].xcom["client_request_id"]


@pytest.mark.skipif(VERSION < (3, 0), reason="attempts have ids from Airflow 3.0 on")
def test_the_id_of_an_attempt_tells_when_the_one_before_ended(airflow: RealAirflow) -> None:
    """What a search for earlier submits counts its grace from, of which Airflow tells nothing else."""
    run = airflow.run(
        """
        @task(retries=1, retry_delay=timedelta(hours=1))
        def probe(ti=None):
            import time
            made = (ti.id.int >> 80) / 1000
            print("PROBE", ti.id.version, time.time() - made, time.time())
            if ti.try_number == 1:
                time.sleep(1.5)
                raise RuntimeError
        probe()
        """
    )
    (version, _, first_began) = re.findall(r"PROBE (\d+) (\S+) (\S+)", run.log)[-1]
    assert version == "7"

    run.go_on()

    (_, ago, began) = re.findall(r"PROBE (\d+) (\S+) (\S+)", run.log)[-1]
    assert float(first_began) + 1.4 < float(began) - float(ago) < float(began)

    time.sleep(1.5)
    cleared = time.time()
    run.clear("probe").go_on()
    (_, ago, began) = re.findall(r"PROBE (\d+) (\S+) (\S+)", run.log)[-1]
    assert cleared < float(began) - float(ago) < float(began)


def test_under_dag_test(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    """Airflow's own loop, with its own retry: one generation, one bill."""
    body = generate("A boat. [emulator: slow=4]", "wait_for_completion=True, timeout=2, poke_interval=1")
    run = airflow.test(body.replace("hours=1", "seconds=3"))

    assert run.state == "success"
    assert run["generate"].tries > 1
    assert run["generate"].xcom["return_value"] == only(vendor)["id"]
    if REMEMBERS:
        assert run["generate"].remembered[RECORD]["generation_id"] == only(vendor)["id"]
