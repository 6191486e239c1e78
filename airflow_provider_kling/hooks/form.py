"""The connection's form in Airflow 2.11 to 3.1, which ask the hook for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
