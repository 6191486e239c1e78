"""A video from the vendor, where no saved file can be reached: streamed through the API server.

The signed URL stays in this process: it is fetched for each request, never stored and never shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from airflow_provider_kling.api.exceptions import KlingError
from airflow_provider_kling.api.polling.poll_tracker import is_ready
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.api.retry import RetryPolicy
from airflow_provider_kling.hooks.kling import KlingHook
from airflow_provider_kling.ui.files.recorded import CHUNK, UnavailableError

log = logger(__name__)

_TOLD_ON: Final = ("content-length", "content-range", "accept-ranges")
_SERVED: Final = (200, 206)
_NO_SUCH_RANGE: Final = 416


@dataclass(slots=True)
class VendorVideo:
    """An open stream from the vendor.

    :param status: 200, 206 or 416.
    :param headers: those that say which bytes come.
    """

    status: int
    headers: dict[str, str]
    _stack: ExitStack
    _chunks: Iterator[bytes]

    def chunks(self) -> Iterator[bytes]:
        """The bytes; closes the connection."""
        with self._stack:
            try:
                yield from self._chunks
            except KlingError as error:
                # The headers are out; the browser sees a short answer and asks again for the rest.
                log.warning("A video from the vendor stopped on its way to a viewer: %s", error.what)

    def close(self) -> None:
        """Close the connection."""
        self._stack.close()


def open_video(generation_id: str, conn_id: str, range_header: str | None) -> VendorVideo:
    """Ask the vendor for a fresh URL, and open it.

    :param conn_id: the connection that submitted it.
    :param range_header: the viewer's ``Range``.
    :raises UnavailableError: the vendor has no video of it, or cannot be reached from here.
    """
    with ExitStack() as stack:
        try:
            client = stack.enter_context(KlingHook(conn_id).get_conn())
            client.calls.read_retries = RetryPolicy(attempts=1)
            generation = client.get_generation(generation_id)
            if not is_ready(generation) or generation.video_url is None:
                raise UnavailableError(f"The vendor has no video of it: it is {generation.status}.")
            headers = {} if range_header is None else {"Range": range_header}
            stream = stack.enter_context(client.fetch(generation.video_url, headers))
        except KlingError as error:
            raise UnavailableError(f"The vendor did not give it. {error.what}") from None
        except UnavailableError:
            raise
        except Exception as error:  # Airflow's secrets backends raise what they like
            raise UnavailableError(
                f"The API server cannot use the connection {conn_id} ({type(error).__name__})."
            ) from None
        if stream.status not in (*_SERVED, _NO_SUCH_RANGE):
            raise UnavailableError(f"The vendor's file server answered with status {stream.status}.")
        told: dict[str, str] = {name: stream.headers[name] for name in _TOLD_ON if name in stream.headers}
        return VendorVideo(stream.status, told, stack.pop_all(), stream.chunks(CHUNK))
    raise AssertionError("not reached")
