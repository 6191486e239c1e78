"""From an Airflow connection to the client's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from airflow_provider_kling.api.exceptions import ConfigurationError
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.api.settings import DEFAULT_BASE_URL, Settings
from airflow_provider_kling.get_provider_info import CONNECTION_FIELDS
from airflow_provider_kling.version_compat import AirflowNotFoundException, BaseHook

log = logger(__name__)

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


class _BlockingLookUp:
    """A hook without an asynchronous lookup: the blocking one is then made in a thread."""

    get_connection = staticmethod(BaseHook.get_connection)


async def read_settings(conn_id: str) -> Settings:
    """Read a connection without blocking the event loop.

    :raises ConfigurationError: as :func:`settings_from`.
    """
    from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson

    try:
        connection = await get_async_connection(conn_id)
    except AirflowNotFoundException:
        # dag.test() of Airflow 3.3 finds what the database holds by blocking lookups only.
        connection = await get_async_connection(conn_id, hook=cast("type[BaseHook]", _BlockingLookUp))
    # Where there is no extra, nothing of it needs to be masked: fewer messages to the supervisor.
    extra = await get_async_extra_dejson(connection) if connection.extra else {}
    return settings_from(connection, extra)


def settings_from(connection: Any, extra: Mapping[str, Any]) -> Settings:
    """Read a connection.

    :param connection: password is the API key; host the base URL, with or without a scheme;
        port and schema (``http`` or ``https``) count where the host names none, as in a URI.
    :param extra: the connection's extra, decoded. Texts are accepted for numbers and booleans, as
        a URI has nothing else; unknown names are logged and left alone.
    :raises ConfigurationError: names the connection, the field, and what is allowed.
    """
    name = connection.conn_id
    if not (connection.password or "").strip():
        raise ConfigurationError(
            f"The connection {name!r} has no API key.",
            advice="Put the AI/ML API key into its password field (shown as 'API key' in the form).",
        )
    given = {key: value for key, value in extra.items() if value not in (None, "")}
    for key in sorted(given.keys() - CONNECTION_FIELDS.keys()):
        log.warning(
            "The connection %r has an extra field %r that this provider does not know; it has %s.",
            name,
            key,
            ", ".join(CONNECTION_FIELDS),
        )
    try:
        values = {key: _typed(key, given[key]) for key in CONNECTION_FIELDS if key in given}
        return Settings(api_key=connection.password, base_url=_base_url(connection), **values)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"The connection {name!r} cannot be used: {error.what}", advice=error.advice
        ) from None


def _base_url(connection: Any) -> str:
    host = (connection.host or "").strip().rstrip("/")
    if not host:
        return DEFAULT_BASE_URL
    if "://" not in host:
        scheme = connection.schema if connection.schema in ("http", "https") else "https"
        host = f"{scheme}://{host}"
    scheme, _, rest = host.partition("://")
    authority, slash, path = rest.partition("/")
    if connection.port and ":" not in authority.rpartition("]")[2]:
        authority = f"{authority}:{connection.port}"
    return f"{scheme}://{authority}{slash}{path}"


def _typed(name: str, value: Any) -> Any:
    """The value in the type that the form's schema gives its field."""
    kind = CONNECTION_FIELDS[name]["schema"]["type"][0]
    text = str(value).strip()
    if kind == "number":
        try:
            return float(text)
        except ValueError:
            raise ConfigurationError(
                f"{name}={text!r} in its extra is not a number.",
                advice=f"Give a number; it is the {CONNECTION_FIELDS[name]['label'].lower()}.",
            ) from None
    if kind == "boolean":
        if text.lower() not in _TRUE + _FALSE:
            raise ConfigurationError(
                f"{name}={text!r} in its extra is neither true nor false.",
                advice="Give true or false.",
            )
        return text.lower() in _TRUE
    return text


def widgets(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Form fields for a connection's extra.

    Airflow takes text, password, integer and boolean fields here and drops the whole hook for any
    other, so a choice is a text that only validates as one of its words.

    :param fields: name -> label, description, schema, as in :data:`.get_provider_info.CONNECTION_FIELDS`.
    """
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, StringField
    from wtforms.validators import AnyOf, Optional

    def field(about: Mapping[str, Any]) -> Any:
        schema = about["schema"]
        what = {"label": lazy_gettext(about["label"]), "description": about["description"]}
        default = schema.get("default")
        if "boolean" in schema["type"]:
            return BooleanField(**what, default=default)
        return StringField(
            **what,
            default=None if default is None else str(default),
            widget=BS3TextFieldWidget(),
            validators=[Optional(), *([AnyOf(schema["enum"])] if "enum" in schema else [])],
        )

    return {name: field(about) for name, about in fields.items()}
