"""KlingHook: an Airflow connection, and what can be done with it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from airflow_provider_kling.api.exceptions import (
    AuthenticationError,
    ConfigurationError,
    ConnectionLostError,
    InsufficientBalanceError,
    KlingError,
)
from airflow_provider_kling.api.generation import Generation, GenerationRequest
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.get_provider_info import (
    CONNECTION_FIELDS,
    CONNECTION_TYPE,
    DEFAULT_CONNECTION_ID,
    HIDDEN_FIELDS,
    HOOK_NAME,
    PLACEHOLDERS,
    RELABELING,
)
from airflow_provider_kling.hooks.connection import settings_from
from airflow_provider_kling.version_compat import BaseHook

if TYPE_CHECKING:
    from airflow_provider_kling.api.async_client import AsyncKlingClient
    from airflow_provider_kling.api.billing.price_list import Estimate
    from airflow_provider_kling.api.calls import Watcher
    from airflow_provider_kling.api.client import KlingClient
    from airflow_provider_kling.api.download.save_video import SavedVideo
    from airflow_provider_kling.api.settings import Settings

log = logger(__name__)


class KlingHook(BaseHook):
    """Talks to the vendor with the key of an Airflow connection.

    :param kling_conn_id: the connection: password is the API key, host the base URL.
    """

    conn_name_attr = "kling_conn_id"
    default_conn_name = DEFAULT_CONNECTION_ID
    conn_type = CONNECTION_TYPE
    hook_name = HOOK_NAME

    def __init__(self, kling_conn_id: str = DEFAULT_CONNECTION_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kling_conn_id = kling_conn_id

    def __getstate__(self) -> dict[str, Any]:
        # A copy, of an operator that was used for example, reads the connection itself and opens its own.
        return {name: value for name, value in vars(self).items() if name not in ("settings", "_client")}

    @cached_property
    def settings(self) -> Settings:
        """The connection, read once.

        :raises ConfigurationError: it has no key, or something in it cannot be used.
        """
        connection = self.get_connection(self.kling_conn_id)
        return settings_from(connection, connection.extra_dejson)

    @cached_property
    def _client(self) -> KlingClient:
        from airflow_provider_kling.api.client import KlingClient
        from airflow_provider_kling.api.transport.shared_rate_limiter import limiter_for

        return KlingClient(self.settings, limiter=limiter_for(self.settings))

    def get_conn(self) -> KlingClient:
        """The blocking client; one for the life of the hook."""
        return self._client

    async def aget_conn(self) -> AsyncKlingClient:
        """A new async client; the caller closes it, best with ``async with``."""
        from airflow_provider_kling.api.async_client import AsyncKlingClient
        from airflow_provider_kling.api.transport.shared_rate_limiter import limiter_for
        from airflow_provider_kling.hooks.connection import read_settings

        settings = await read_settings(self.kling_conn_id)
        return AsyncKlingClient(settings, limiter=limiter_for(settings))

    def prepare(
        self,
        model: str,
        parameters: Mapping[str, Any],
        *,
        image: Any = None,
        sign_seconds: int | None = None,
        convert_image: bool = False,
    ) -> GenerationRequest:
        """Validate a request and read its pictures; sends nothing.

        :param model: the vendor's model id.
        :param parameters: as the vendor names them; media may be URLs, local paths or
            object-storage URIs.
        :param image: fills the model's image parameter.
        :param sign_seconds: send media in object storage as URLs that work for so many seconds,
            where the storage can sign; None sends the bytes.
        :param convert_image: make a JPEG or PNG of images that the vendor does not take: WebP, AVIF,
            GIF, TIFF, BMP, HEIC (with the extra ``heic``), or too large ones. URLs are passed on.
        :return: the request, ready to send, with what a log may hold of it.
        :raises InvalidRequestError: naming every problem at once.
        """
        from airflow_provider_kling.hooks.lineage import collect, media_uris
        from airflow_provider_kling.hooks.prepare_request import prepare

        request = prepare(
            model,
            parameters,
            image=image,
            account=self.account,
            sign_seconds=sign_seconds,
            convert_image=convert_image,
        )
        collect(self, inputs=media_uris(request.described))
        return request

    def submit(
        self,
        model: str,
        parameters: Mapping[str, Any],
        *,
        image: Any = None,
        client_request_id: str | None = None,
    ) -> Generation:
        """Ask for a generation. This costs money, when it completes.

        :param model: see :meth:`prepare`, also for the next two.
        :param client_request_id: 1 to 128 characters of ``A-Z a-z 0-9 . _ : -`` that the vendor
            keeps with it.
        :return: the generation, just queued.
        :raises SubmitUncertainError: it may have been accepted; do not simply repeat it.
        :raises KlingError: it was not accepted.
        """
        request = self.prepare(model, parameters, image=image)
        return self.get_conn().submit(request, client_request_id)

    def get_generation(self, generation_id: str) -> Generation:
        """Ask how a generation stands; free.

        :raises KlingError: the vendor does not know it, refuses, or cannot be reached.
        """
        from airflow_provider_kling.hooks.prepare_request import checked_generation_id

        generation_id = checked_generation_id(generation_id)
        return self.get_conn().get_generation(generation_id)

    def wait(
        self,
        generation_id: str,
        *,
        timeout: float,
        poke_interval: float | None = None,
        model: str | None = None,
        submitted_at: float | None = None,
        watch: Watcher | None = None,
    ) -> Generation:
        """Block until the video of a generation is there.

        :param timeout: seconds at most, 0 to a week; anything else is a ValueError.
        :param poke_interval: seconds between polls; None polls where completion is likely.
        :param model: the model, whose usual duration sharpens that.
        :param submitted_at: epoch seconds of the submit; None for now.
        :param watch: called with each status when it changes.
        :raises GenerationFailedError: it ended in an error.
        :raises GenerationTimeoutError: the time is over; it may still complete.
        :raises KlingError: the vendor refuses to answer about it.
        """
        from airflow_provider_kling.api.catalog.models import schedule_for
        from airflow_provider_kling.hooks import metrics
        from airflow_provider_kling.hooks.prepare_request import checked_generation_id

        generation_id = checked_generation_id(generation_id)
        client = self.get_conn()
        return client.run(
            client.calls.wait_until_complete(
                generation_id,
                schedule=schedule_for(poke_interval, model),
                deadline=client.calls.deadline(timeout),
                submitted_at=submitted_at,
                watch=watch or self.log_status,
                polled=partial(metrics.count, metrics.POLLS),
            )
        )

    def log_status(self, generation: Generation) -> None:
        """Log how a generation stands; its URL is not in it."""
        log.info("Generation %s: %s", generation.id, generation.raw_status or generation.status)

    def download(
        self,
        generation_id: str,
        path: Any,
        *,
        overwrite: bool = False,
        model: str | None = None,
        client_request_id: str | None = None,
        expected_seconds: float | None = None,
        generation: Generation | None = None,
    ) -> SavedVideo:
        """Save the video of a completed generation: complete and verified, or not at all.

        :param path: a local path, or the URI or path of an object in storage
            (``s3://conn@bucket/key``); may name ``{generation_id}``, ``{model}``; one that ends
            with a slash is completed with ``{generation_id}.mp4``.
        :param overwrite: replace what is there. Otherwise the same video is left as it is, and
            another file is an error.
        :param model: for ``{model}`` in the path.
        :param client_request_id: for ``{client_request_id}`` and ``{loop_index}`` in the path.
        :param expected_seconds: length that was asked for; another one is logged.
        :param generation: as the vendor described it a moment ago; None to ask.
        :raises GenerationFailedError: it ended in an error.
        :raises DownloadError: the video did not arrive; it stays paid and can be fetched again.
        """
        from airflow_provider_kling.api.calls import is_ready, not_ready
        from airflow_provider_kling.api.download.save_video import save_video
        from airflow_provider_kling.hooks.lineage import collect, place_uri
        from airflow_provider_kling.hooks.object_storage import target_path
        from airflow_provider_kling.hooks.prepare_request import checked_generation_id

        generation_id = checked_generation_id(generation_id)
        client = self.get_conn()
        fresh = [] if generation is None else [generation]

        def ask_vendor() -> Generation:
            stands = fresh.pop() if fresh else client.get_generation(generation_id)
            if not is_ready(stands) or stands.video_url is None:
                raise not_ready(stands)
            return stands

        target = target_path(
            path, generation_id=generation_id, model=model, client_request_id=client_request_id
        )
        saved = save_video(
            client.fetch,
            ask_vendor,
            target,
            generation_id=generation_id,
            overwrite=overwrite,
            expected_seconds=expected_seconds,
        )
        if (uri := place_uri(saved.path)) is not None:
            collect(self, outputs=[uri])
        return saved

    def estimate(self, model: str, parameters: Mapping[str, Any], *, image: Any = None) -> Estimate | None:
        """What a request would cost, by the vendor's live price list; reads no picture, sends no key.

        :param model: see :meth:`prepare`, also for the next two.
        :return: USD, and how they come about; None where the price list cannot tell.
        :raises InvalidRequestError: naming every problem at once.
        :raises KlingError: the vendor did not tell.
        """
        from airflow_provider_kling.api.billing.cost import estimate_of
        from airflow_provider_kling.api.catalog.validation import validate, with_image

        request, _ = validate(GenerationRequest(model, with_image(model, parameters, image)))
        client = self.get_conn()
        return client.run(estimate_of(client.calls, request))

    def get_balance(self) -> float:
        """The account's balance in USD; free."""
        return self.get_conn().get_balance()

    @property
    def account(self) -> str:
        """Who pays, without the key: connection id and base URL."""
        return f"{self.kling_conn_id} {self.settings.base_url}"

    def test_connection(self) -> tuple[bool, str]:
        """Ask for the balance, which costs nothing, and say plainly what came of it."""
        from airflow_provider_kling.api.client import KlingClient
        from airflow_provider_kling.api.retry import RetryPolicy

        try:
            settings = self.settings
            with KlingClient(settings) as client:
                client.calls.read_retries = RetryPolicy(attempts=1)
                balance = client.get_balance()
        except ConfigurationError as error:
            return False, str(error)
        except AuthenticationError as error:
            return False, f"Wrong key: {error.what} {error.advice}"
        except InsufficientBalanceError as error:
            return False, f"No credit: {error.what} {error.advice}"
        except ConnectionLostError as error:
            return (
                False,
                f"Unreachable: {error.what} Check host, proxy and CA bundle of the connection.",
            )
        except KlingError as error:
            return False, str(error)
        if balance <= 0:
            return False, (
                f"The key is right, but there is no credit: the balance is {balance:.2f} USD, and the "
                "vendor would "
                "refuse every generation. Top up the AI/ML API account."
            )
        return True, f"The key is right. The balance of the account is {balance:.2f} USD."

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """How Airflow 2.11 to 3.1 show the standard fields of the connection's form."""
        return {
            "hidden_fields": HIDDEN_FIELDS,
            "relabeling": RELABELING,
            "placeholders": PLACEHOLDERS,
        }

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The fields of the connection's extra, for Airflow 2.11 to 3.1."""
        from airflow_provider_kling.hooks.connection import widgets

        return widgets(CONNECTION_FIELDS)
