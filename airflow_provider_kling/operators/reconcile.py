"""KlingReconcileOperator finds videos that were paid and never saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_provider_kling.api.redaction import logger, shown
from airflow_provider_kling.get_provider_info import DEFAULT_CONNECTION_ID
from airflow_provider_kling.task.arguments import (
    Check,
    CheckedWhenParsed,
    check_path_if_known,
    checked_choice,
    refuse,
)
from airflow_provider_kling.task.failures import failing_as_airflow_expects
from airflow_provider_kling.version_compat import BaseOperator

if TYPE_CHECKING:
    from airflow_provider_kling.api.durable.reconciliation import ReconciledRow
    from airflow_provider_kling.hooks.kling import KlingHook
    from airflow_provider_kling.version_compat import Context

log = logger(__name__)

DEFAULT_SPAN = 86_400.0
"""Seconds before ``end`` at which the span begins, where ``start`` is not given."""
MOST_ORPHANS_IN_XCOM = 1000
KEY_PREFIX = 8
"""Characters of a key by which the vendor names it."""


class KlingReconcileOperator(CheckedWhenParsed, BaseOperator):
    """Compare what this provider submitted, by the vendor's request logs, with the videos that were saved.

    A task can fail for good after its generation was paid, or be deleted with its DAG. This finds such
    generations by the client request ids that the provider gives to its submits, looks up how each stands,
    and whether its video is where ``path`` says. It reads, and spends nothing; with ``action="save"`` it
    saves what is missing. The logs lag: leave the last hour out, or run it again.

    The task logs a table of the orphans, pushes counts and orphans as XCom, and writes all rows as CSV where
    ``csv_path`` is given. Reading keeps within the vendor's limit of 200 log requests a minute. A retry reads
    the logs again, and saves what is still missing.

    The logs list the requests of the key that asks. Those of a key that was replaced since are listed for a
    management key alone, which is told the first 8 characters of the old one: see ``key_prefixes``.

    :param path: where videos are, as :class:`.KlingGenerateOperator` takes it: a local path or the URI of an
        object, with ``{generation_id}`` or ``{client_request_id}``, or with a slash at its end. None only
        lists the generations.
    :param start: beginning of the span, a datetime or ISO 8601 text, UTC where it names no zone; None for a
        day before the end.
    :param end: end of the span, likewise; None for now.
    :param dag_ids: DAGs whose generations are looked at; None for all.
    :param action: ``report`` only reads; ``save`` also saves the videos that are missing.
    :param csv_path: where the CSV goes: a local path, or the URI of an object. What is there is replaced.
    :param kling_conn_id: the connection whose key submitted, and which saves.
    :param key_prefixes: the first 8 characters of each other key of the account whose generations are looked
        at as well. More than that is refused, as a key does not belong in a DAG.
    :param logs_conn_id: the connection with the management key that reads their logs; None for
        ``kling_conn_id``.
    :raises AirflowFailException: what a retry cannot help.
    :return: the counts: ``generations``, ``completed``, ``working``, ``failed``, ``unknown``, ``saved``,
        ``orphans``, ``orphans_usd``, and ``problems``, which is 0 as the task fails otherwise.
    """

    template_fields: Sequence[str] = (
        "path",
        "start",
        "end",
        "dag_ids",
        "csv_path",
        "kling_conn_id",
        "logs_conn_id",
    )
    argument_checks: ClassVar[Mapping[str, Check]] = {
        "path": check_path_if_known,
        "action": checked_choice("action", "report", "save"),
    }

    def __init__(
        self,
        *,
        path: Any = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        dag_ids: Sequence[str] | None = None,
        action: Literal["report", "save"] = "report",
        csv_path: str | None = None,
        kling_conn_id: str = DEFAULT_CONNECTION_ID,
        key_prefixes: Sequence[str] = (),
        logs_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.start = start
        self.end = end
        self.dag_ids = dag_ids
        self.action = action
        self.csv_path = csv_path
        self.kling_conn_id = kling_conn_id
        self.key_prefixes = key_prefixes
        self.logs_conn_id = logs_conn_id
        from airflow_provider_kling.api.paths import tells_apart
        from airflow_provider_kling.task.inline_media import is_template

        problems = list(self.problems_when_parsed({"path": path, "action": action}, complete=True))
        if action == "save" and path is None:
            problems.append("action='save' needs a path to save the videos at.")
        if isinstance(path, str) and not is_template(path) and not tells_apart(path):
            problems.append("path needs {generation_id} or {client_request_id}, or a slash at its end.")
        single = isinstance(key_prefixes, str)
        if single or any(not isinstance(each, str) or len(each) != KEY_PREFIX for each in key_prefixes):
            problems.append(
                f"key_prefixes is a list of texts with the first {KEY_PREFIX} characters of a key."
            )
        refuse(problems)

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the logs, look for the videos, report, and save what is missing if so wanted."""
        from airflow_provider_kling.api.durable.reconciliation import Reconciliation, submitted_rows
        from airflow_provider_kling.hooks import metrics
        from airflow_provider_kling.hooks.kling import KlingHook
        from airflow_provider_kling.task import xcom

        with failing_as_airflow_expects(context, submits=False):
            hook = KlingHook(self.kling_conn_id)
            client = hook.get_conn()
            since, until = self._span(client.calls.now())
            dags = self.dag_ids or ()
            rows = client.run(submitted_rows(client.calls, since, until, dags))
            if self.key_prefixes:
                logs = KlingHook(self.logs_conn_id or self.kling_conn_id).get_conn()
                for prefix in self.key_prefixes:
                    rows += logs.run(submitted_rows(logs.calls, since, until, dags, prefix))
            for row in rows:
                self._look_up(hook, row)
            found = Reconciliation(rows)
            log.info("%s", found.text())
            counts = found.summary()
            metrics.gauge(metrics.ORPHANS, counts["orphans"], **metrics.task_tags(context))
            orphans = [{"generation_id": row.generation_id, "dag": row.dag, "task": row.task, "usd": row.usd}
                       for row in found.orphans[:MOST_ORPHANS_IN_XCOM]]  # fmt: skip
            xcom.push(context, xcom.ORPHANS, orphans)
            unsaved = self._save(hook, found.orphans) if self.action == "save" else 0
            self._write_csv(found)
            if unsaved or counts["problems"]:
                raise self._incomplete(unsaved, counts)
            return counts if self.action == "report" else {**counts, **found.summary()}

    def _span(self, now: float) -> tuple[float, float]:
        until = now if self.end in (None, "") else _moment("end", self.end)
        since = until - DEFAULT_SPAN if self.start in (None, "") else _moment("start", self.start)
        if since >= until:
            raise _unusable(f"the span begins at {self.start}, and not before its end ({self.end or 'now'})")
        return since, until

    def _look_up(self, hook: KlingHook, row: ReconciledRow) -> None:
        """Whether the video is there, and where the logs do not tell, how the generation stands."""
        from airflow_provider_kling.api.download.targets import target_for
        from airflow_provider_kling.api.durable.reconciliation import current_state
        from airflow_provider_kling.api.exceptions import KlingError
        from airflow_provider_kling.api.paths import text_of
        from airflow_provider_kling.hooks.object_storage import target_path

        try:
            if self.path is not None:
                place = target_path(
                    self.path,
                    generation_id=row.generation_id,
                    model=row.model or None,
                    client_request_id=row.client_request_id,
                )
                row.path = text_of(place)
                size = target_for(place, row.generation_id).size()
                row.saved = "no" if size is None else "yes"
            if row.state == "unknown" and row.saved != "yes":
                client = hook.get_conn()
                row.state = client.run(current_state(client.calls, row.generation_id))
            elif row.state == "unknown":
                row.state = "completed"
        except KlingError as error:
            row.problem = error.what
            log.warning("Could not look up generation %s: %s", row.generation_id, error)

    def _save(self, hook: KlingHook, orphans: Sequence[ReconciledRow]) -> int:
        """Save what is missing.

        :return: how many videos could not be saved.
        """
        from airflow_provider_kling.api.exceptions import KlingError

        failed = 0
        for row in orphans:
            try:
                saved = hook.download(
                    row.generation_id,
                    self.path,
                    model=row.model or None,
                    client_request_id=row.client_request_id,
                )
            except KlingError as error:
                failed += 1
                row.problem = error.what
                log.warning("Could not save generation %s: %s", row.generation_id, error)
            else:
                row.saved, row.path = "yes", saved.path
                log.info("Saved generation %s at %s.", row.generation_id, saved.path)
        return failed

    def _write_csv(self, found: Any) -> None:
        if self.csv_path:
            from airflow_provider_kling.hooks.object_storage import write_text

            write_text(self.csv_path, found.csv())
            log.info("Wrote %d rows as CSV: %s", len(found.rows), self.csv_path)

    def _incomplete(self, unsaved: int, counts: Mapping[str, Any]) -> Exception:
        from airflow_provider_kling.api.exceptions import KlingError, Money, Recovery

        problems = []
        if unsaved:
            problems.append(
                f"{unsaved} of {counts['orphans']} paid videos that are missing could not be saved"
            )
        if counts["problems"]:
            problems.append(
                f"{counts['problems']} of {counts['generations']} generations could not be looked up"
            )
        return KlingError(
            f"{', and '.join(problems)}; the log says why.",
            money=Money.ALREADY_PAID,
            recovery=Recovery.RETRY_TASK,
            advice="The next attempt looks again, and with action='save' saves what is still missing.",
        )


def _moment(name: str, value: Any) -> float:
    """Epoch seconds of a datetime or of an ISO 8601 text."""
    try:
        parsed = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise _unusable(f"{name}={shown(value)} is no ISO 8601 time") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _unusable(why: str) -> Exception:
    from airflow_provider_kling.api.exceptions import InvalidRequestError

    return InvalidRequestError(f"The span of time cannot be used: {why}.")
