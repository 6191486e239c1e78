"""``@task.kling_generate``: a function that says what to generate."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_kling.operators.batch import KlingGenerateBatchOperator
from airflow_provider_kling.operators.kling import KlingGenerateOperator
from airflow_provider_kling.task.arguments import refuse
from airflow_provider_kling.task.inline_media import hide

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import TaskDecorator

    from airflow_provider_kling.version_compat import Context


def _called(operator: Any, context: Context) -> Any:
    """What the decorated function returns."""
    context_merge(context, operator.op_kwargs)
    kwargs = determine_kwargs(operator.python_callable, operator.op_args, context)
    return operator.python_callable(*operator.op_args, **kwargs)


class KlingGenerateDecoratedOperator(DecoratedOperator, KlingGenerateOperator):
    """What ``@task.kling_generate`` makes of a function; see :func:`kling_generate_task`."""

    custom_operator_name = "@task.kling_generate"
    complete_when_parsed = False
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *KlingGenerateOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **KlingGenerateOperator.template_fields_renderers,
    }

    execute = KlingGenerateOperator.execute

    def requested(self, context: Context) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        """Call the function for what to generate."""
        returned = _called(self, context)
        if isinstance(returned, list | tuple):
            return [self._combined(each) for each in returned]
        return self._combined(returned)

    def _combined(self, returned: Any) -> dict[str, Any]:
        """The decorator's arguments with what the function returned on top of them.

        :raises InvalidRequestError: it is neither a prompt nor a mapping.
        """
        from airflow_provider_kling.api.catalog.validation import invalid_request

        given = self.arguments()
        if isinstance(returned, str):
            return {**given, "prompt": returned}
        if not isinstance(returned, Mapping):
            what = f"{self.python_callable.__name__} returned {type(returned).__name__}"
            raise invalid_request(
                [f"{what}; @task.kling_generate takes a prompt, a mapping of arguments, or a list of these."]
            )
        own_names = inspect.signature(KlingGenerateOperator.__init__).parameters.keys() - given.keys()
        if misplaced := sorted(own_names & returned.keys()):
            raise invalid_request(
                [
                    f"{self.python_callable.__name__} returned {', '.join(misplaced)}, which is no part of a "
                    "request: give it to the decorator, @task.kling_generate(...)."
                ]
            )
        own = {name: hide(value) for name, value in returned.items() if name in given}
        further = {name: hide(value) for name, value in returned.items() if name not in given}
        parameters = {**(given["parameters"] or {}), **(own.pop("parameters", None) or {}), **further}
        return {**given, **own, "parameters": parameters}


def kling_generate_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Generate what the decorated function returns.

    The function returns the prompt; or a mapping with those arguments of :class:`.KlingGenerateOperator`
    that make the request (``model``, ``prompt``, ``image``, ``duration``, ``negative_prompt``,
    ``cfg_scale``, ``parameters``) and any further parameters of the model by the vendor's names; or a
    list of either, of which each becomes a generation of its own: paid once, found again by a retry.
    The task returns the generation id, or the list of ids; the XComs beside it are lists then too.
    With ``deferrable=True`` one trigger waits for all of them, and each video is saved within seconds of its
    completion. A variant that fails keeps no other from its video: the task fails when all are waited for,
    and says which.

    :param python_callable: the function.
    :param kwargs: arguments of :class:`.KlingGenerateOperator` that hold for whatever it returns.
    """
    refuse(KlingGenerateDecoratedOperator.problems_when_parsed(kwargs, complete=False))
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=False,
        decorated_operator_class=KlingGenerateDecoratedOperator,
        **kwargs,
    )


class KlingBatchDecoratedOperator(DecoratedOperator, KlingGenerateBatchOperator):
    """What ``@task.kling_batch`` makes of a function; see :func:`kling_batch_task`."""

    custom_operator_name = "@task.kling_batch"
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *KlingGenerateBatchOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **KlingGenerateBatchOperator.template_fields_renderers,
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"requests": None, **kwargs})

    def execute(self, context: Context) -> Any:
        """Call the function for the rows, and make a video of each."""
        self.requests = _called(self, context)
        return KlingGenerateBatchOperator.execute(self, context)

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Call the function again, as an operator keeps nothing over a deferral; it must return the same."""
        self.requests = _called(self, context)
        return KlingGenerateBatchOperator.execute_complete(self, context, event)


def kling_batch_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a video of each row that the decorated function returns.

    :param python_callable: the function; it returns what :class:`.KlingGenerateBatchOperator` takes as
        ``requests``, and the same each time that it is called in an attempt.
    :param kwargs: arguments of :class:`.KlingGenerateBatchOperator`.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=False,
        decorated_operator_class=KlingBatchDecoratedOperator,
        **kwargs,
    )
