"""What fails a task for good, what Airflow retries, and what the log says of it."""

from __future__ import annotations

import json

import pytest

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.airflow.real_airflow import REMEMBERS, VERSION, RealAirflow, Run

TEXT_MODEL = "kling-video/v1.6/standard/text-to-video"
TRIES = "retries=3, retry_delay=timedelta(hours=1)"


def generate(prompt: str = "A boat.", arguments: str = "") -> str:
    return f'KlingGenerateOperator(task_id="generate", model="{TEXT_MODEL}", prompt="{prompt}", {TRIES}, {arguments})'


def assert_failed_for_good(run: Run, *said: str) -> None:
    assert run["generate"].state == "failed"
    assert run["generate"].tries == 1
    for words in said:
        assert words in run.log


def assert_to_be_retried(run: Run, *said: str) -> None:
    assert run["generate"].state == "up_for_retry"
    for words in said:
        assert words in run.log


class TestNoRetry:
    """A retry would mend nothing, and might cost something."""

    @pytest.mark.parametrize(
        "wait", ["deferrable=False, poke_interval=1", "deferrable=True, poke_interval=5"]
    )
    def test_the_vendor_s_verdict(self, airflow: RealAirflow, vendor: EmulatorThread, wait: str) -> None:
        run = airflow.run(generate("A boat. [emulator: moderation]", f"wait_for_completion=True, {wait}"))

        (generation,) = vendor.generations
        said = "ModerationError: The content was rejected by the moderation of the model"
        assert_failed_for_good(run, f"Generation {generation['id']} ended in an error", "not charge", said)
        assert vendor.stats["charges"] == 0

    @pytest.mark.parametrize(
        "wait", ["deferrable=False, poke_interval=1", "deferrable=True, poke_interval=5"]
    )
    def test_a_generation_that_failed_for_a_passing_reason_is_left_to_the_task_s_retries(
        self, airflow: RealAirflow, vendor: EmulatorThread, wait: str
    ) -> None:
        run = airflow.run(generate("A boat. [emulator: fail]", f"wait_for_completion=True, {wait}"))

        (generation,) = vendor.generations
        assert_to_be_retried(run, f"Generation {generation['id']} ended in an error", "not charge")
        assert vendor.stats["charges"] == 0

    def test_a_verdict_that_comes_while_deferred(
        self, patient_airflow: RealAirflow, slow_vendor: EmulatorThread
    ) -> None:
        run = patient_airflow.run(
            generate("A boat. [emulator: moderation]", "wait_for_completion=True, deferrable=True")
        )

        (generation,) = slow_vendor.generations
        assert_failed_for_good(run, "in the triggerer", f"Generation {generation['id']} ended in an error")

    def test_a_wrong_key(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        connection = {"conn_type": "kling", "host": vendor.url, "password": "not-the-key"}
        run = airflow.run(generate(), AIRFLOW_CONN_KLING_DEFAULT=json.dumps(connection))

        assert_failed_for_good(run, "401", "Check the API key", "No money was spent.")
        assert "not-the-key" not in run.log
        assert vendor.stats["accepted"] == 0

    def test_no_balance(self, started_airflow: RealAirflow) -> None:
        with EmulatorThread(EmulatorOptions(balance=0.01)) as poor:
            connection = {"conn_type": "kling", "host": poor.url, "password": poor.api_key}
            run = started_airflow.run(generate(), AIRFLOW_CONN_KLING_DEFAULT=json.dumps(connection))

            assert_failed_for_good(run, "Top up", "No money was spent.")
            assert poor.stats["calls"]["submit"] == 1
            assert poor.stats["accepted"] == 0

    def test_a_429_about_the_balance_is_no_rate_limit(
        self, airflow: RealAirflow, vendor: EmulatorThread
    ) -> None:
        vendor.faults.add("submit", 429, message="balance")
        run = airflow.run(generate())

        assert_failed_for_good(run, "Top up")
        assert vendor.stats["calls"]["submit"] == 1

    def test_parameters_that_only_the_vendor_refuses(
        self, airflow: RealAirflow, vendor: EmulatorThread
    ) -> None:
        vendor.faults.add("submit", 400, message="prompt: too long")
        run = airflow.run(generate())

        assert_failed_for_good(run, "prompt: too long", "Correct the request", "No money was spent.")
        assert vendor.stats["calls"]["submit"] == 1
        assert vendor.stats["accepted"] == 0

    def test_parameters_that_are_wrong_once_rendered(
        self, airflow: RealAirflow, vendor: EmulatorThread
    ) -> None:
        run = airflow.run(
            generate(arguments='duration="{{ params.seconds }}", cfg_scale="{{ params.scale }}"'),
            dag={"params": {"seconds": 7, "scale": "a lot"}},
        )

        assert_failed_for_good(run, "2 problems", "must be 5 or 10", "'cfg_scale'", "No money was spent.")
        assert vendor.journal == []

    def test_a_template_that_renders_to_text_instead_of_parameters(
        self, airflow: RealAirflow, vendor: EmulatorThread
    ) -> None:
        run = airflow.run(generate(arguments='parameters="{{ params.all }}"'), dag={"params": {"all": {}}})

        assert_failed_for_good(run, "parameters must be a mapping", "put templates into the values")
        assert vendor.journal == []

    def test_a_mapped_task_whose_arguments_are_wrong(
        self, airflow: RealAirflow, vendor: EmulatorThread
    ) -> None:
        run = airflow.run(
            f"""
            @task
            def durations():
                return [5, 7]

            KlingGenerateOperator.partial(
                task_id="generate", model="{TEXT_MODEL}", prompt="x", {TRIES}
            ).expand(duration=durations())
            """
        )

        assert run["generate[0]"].state == "success"
        assert run["generate[1]"].state == "failed"
        assert run["generate[1]"].tries == 1
        assert "must be 5 or 10, not 7" in run.log
        assert vendor.stats["calls"]["submit"] == 1

    @pytest.mark.parametrize(
        "given",
        [
            '""',
            "task(task_id='none')(lambda: None)()",
            "'{{ ti.xcom_pull(task_ids=\\'none\\') }}'",
            '["a", "b"]',
        ],
    )
    @pytest.mark.parametrize(
        "operator",
        ["KlingGenerationSensor(", 'KlingDownloadOperator(path="/nowhere/",'],
        ids=["wait", "save_video"],
    )
    def test_what_is_no_generation_id(
        self, airflow: RealAirflow, vendor: EmulatorThread, operator: str, given: str
    ) -> None:
        run = airflow.run(f'{operator} task_id="generate", generation_id={given}, {TRIES})')

        assert_failed_for_good(run, "is not a generation id", "pass generation_id=generate.output")
        assert vendor.journal == []

    def test_a_connection_that_does_not_exist(self, airflow: RealAirflow) -> None:
        """Airflow's own error, which it retries: the connection may be there by then."""
        run = airflow.run(generate(arguments='kling_conn_id="nowhere"'))

        assert "nowhere" in run.log
        assert run["generate"].state in ("failed", "up_for_retry")

    def test_a_connection_without_a_key(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        run = airflow.run(generate(), AIRFLOW_CONN_KLING_DEFAULT=json.dumps({"conn_type": "kling"}))

        assert_failed_for_good(
            run, "'kling_default' has no API key", "password field", "Nothing was sent, so this cost nothing."
        )
        assert vendor.journal == []


class TestRetry:
    """Passing trouble: Airflow's own retries, by the task's own settings."""

    @pytest.mark.parametrize("status", [429, 503])
    def test_refusals_for_the_moment(self, airflow: RealAirflow, vendor: EmulatorThread, status: int) -> None:
        vendor.faults.add("submit", status, times=20, retry_after="0")
        run = airflow.run(generate(arguments="uncertain_grace=0"))
        assert_to_be_retried(run, str(status), "No money was spent.")

        vendor.faults.clear()
        run.go_on()

        assert run.state == "success"
        assert run["generate"].tries == 2
        assert vendor.stats["accepted"] == 1

    def test_a_vendor_that_cannot_be_reached(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        """Never sent, so certainly not paid."""
        connection = {"conn_type": "kling", "host": "http://127.0.0.1:1", "password": vendor.api_key}
        run = airflow.run(generate(), AIRFLOW_CONN_KLING_DEFAULT=json.dumps(connection))

        assert_to_be_retried(run, "refused", "127.0.0.1:1", "No money was spent.")

    @pytest.mark.parametrize("status", [500, 502])
    def test_a_submit_that_may_have_been_accepted_is_not_simply_repeated(
        self, airflow: RealAirflow, vendor: EmulatorThread, status: int
    ) -> None:
        """It is not in the vendor's logs, and the user does not want to risk a second bill."""
        vendor.faults.add("submit", status)
        run = airflow.run(generate(arguments="uncertain_grace=0, on_uncertain_submit='fail'"))

        assert_failed_for_good(
            run, str(status), "not in the vendor's request log", "on_uncertain_submit='fail'"
        )
        assert vendor.stats["calls"]["submit"] == 1

    @pytest.mark.parametrize("how", ["deferrable=False, poke_interval=1", "deferrable=True, poke_interval=5"])
    def test_a_timeout_names_the_id_and_is_waited_for_again(
        self, airflow: RealAirflow, vendor: EmulatorThread, how: str
    ) -> None:
        run = airflow.run(
            generate("A boat. [emulator: slow=3600]", f"wait_for_completion=True, timeout=1, {how}")
        )

        (generation,) = vendor.generations
        assert_to_be_retried(
            run,
            f"Timed out waiting for generation {generation['id']}",
            "billed on completion",
            f"KlingGenerationSensor(generation_id='{generation['id']}', timeout=...)",
        )
        assert run["generate"].xcom["generation_id"] == generation["id"]

        vendor.clock.advance(3700)
        run.go_on()

        assert run.state == "success"
        assert run["generate"].xcom["return_value"] == generation["id"]
        assert vendor.stats["accepted"] == 1

    def test_a_worker_that_loses_the_vendor_while_it_waits(
        self, patient_airflow: RealAirflow, slow_vendor: EmulatorThread
    ) -> None:
        """The wait itself has more patience than one call."""
        slow_vendor.faults.add("poll", "reset-before", times=2)
        run = patient_airflow.run(generate(arguments="wait_for_completion=True, poke_interval=1"))

        assert run.state == "success"
        assert run["generate"].tries == 1
        assert "still waiting" in run.log


class TestEvents:
    """Whatever a trigger hands over, the task that goes on says of which generation it speaks."""

    @pytest.fixture
    def run(self, airflow: RealAirflow, vendor: EmulatorThread) -> Run:
        """A run whose task waits, and whose generation is completed."""
        run = airflow.run(
            generate("A boat. [emulator: slow=3600]", "wait_for_completion=True, timeout=1, poke_interval=1")
        )
        vendor.clock.advance(3700)
        return run

    @pytest.mark.parametrize(
        "event",
        [
            None,
            "completed",
            {},
            {"schema": 1},
            {"schema": 1, "generation_id": 5},
            {"schema": 2, "generation_id": "GENERATION", "status": "completed"},
            {"schema": 1, "generation_id": "GENERATION", "error": "it failed"},
        ],
    )
    def test_a_malformed_one_fails_loudly(self, run: Run, vendor: EmulatorThread, event: object) -> None:
        (generation,) = vendor.generations
        text = json.dumps(event).replace("GENERATION", generation["id"])
        run.resume("generate", "execute_complete", event=json.loads(text))

        assert_to_be_retried(run, "The trigger's event", generation["id"])
        # From 3.4 on, the failed attempt before it has made the row of the next, which this resumed.
        assert run["generate"].tries == (2 if VERSION >= (3, 4) else 1)

        run.go_on()

        assert run["generate"].xcom["return_value"] == generation["id"]
        assert vendor.stats["accepted"] == 1

    def test_a_lost_trigger_is_retried_and_reattaches(self, run: Run, vendor: EmulatorThread) -> None:
        """Airflow ends a deferral that nobody ends: defer(timeout=)."""
        run.resume("generate", "__fail__", error="Trigger timeout")
        assert_to_be_retried(run, "timeout")

        run.go_on()

        assert run.state == "success"
        assert vendor.stats["accepted"] == 1

    def test_a_good_one_is_taken_up(self, run: Run, vendor: EmulatorThread) -> None:
        (generation,) = vendor.generations
        event = {"schema": 1, "generation_id": generation["id"], "status": "completed"}
        run.resume("generate", "execute_complete", event=event)

        assert run["generate"].state == "success"
        assert run["generate"].xcom["return_value"] == generation["id"]
        assert run["generate"].xcom["generation"]["status"] == "completed"


@pytest.mark.skipif(not REMEMBERS, reason="retry policies are new in Airflow 3.3")
class TestRetryPolicy:
    POLICY = (
        "retry_policy=__import__('airflow_provider_kling.retry_policy', fromlist=['x']).KlingRetryPolicy()"
    )

    def test_it_passes_through_the_serialized_dag(self, airflow: RealAirflow) -> None:
        parsed = airflow.parse(generate(arguments=self.POLICY))

        assert parsed["import_errors"] == ""
        assert '"has_retry_policy": true' in json.dumps(parsed["dags"])

    def test_it_waits_as_the_vendor_asks(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        vendor.faults.add("submit", 429, times=3, retry_after="0")
        vendor.faults.add("submit", 429, times=9, retry_after="900")
        run = airflow.run(generate(arguments=self.POLICY))

        assert run["generate"].state == "up_for_retry"
        assert run["generate"].retry_delay is not None
        assert 900 <= run["generate"].retry_delay <= 990
        assert "the vendor asked for 900 s" in (run["generate"].retry_reason or "")

    def test_it_backs_off(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        """Also where the vendor asks for less: the client has waited that long by itself, in vain."""
        vendor.faults.add("submit", 503, times=100, retry_after="0")
        run = airflow.run(generate(arguments=self.POLICY))

        assert run["generate"].state == "up_for_retry"
        assert run["generate"].retry_delay is not None
        assert 15 <= run["generate"].retry_delay <= 30
        assert "backing off" in (run["generate"].retry_reason or "")

    def test_it_fails_what_a_retry_cannot_fix(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        vendor.faults.add("submit", 400)
        run = airflow.run(generate(arguments=self.POLICY))

        assert_failed_for_good(run, "Correct the request")

    def test_it_leaves_other_errors_to_the_task(self, airflow: RealAirflow) -> None:
        run = airflow.run(
            f"""
            def broken(context):
                raise RuntimeError("not ours")
            KlingGenerateOperator(
                task_id="generate", model="{TEXT_MODEL}", prompt="x", {TRIES}, {self.POLICY}, pre_execute=broken)
            """
        )

        assert_to_be_retried(run, "not ours")
        assert run["generate"].retry_delay is None


@pytest.mark.skipif(REMEMBERS, reason="this Airflow has retry policies")
def test_before_airflow_3_3_a_policy_says_what_it_needs(airflow: RealAirflow) -> None:
    error = airflow.import_error(generate(arguments=TestRetryPolicy.POLICY))

    assert "Retry policies need Airflow 3.3 or newer; leave retry_policy out." in error
