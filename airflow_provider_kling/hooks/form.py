"""The connection's form in Airflow 2.11 to 3.1, which ask the hook for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def widgets(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Form fields for a connection's extra.

    :param fields: name -> label, description, schema, as in :data:`.provider.CONNECTION_FIELDS`.
    """
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget, Select2Widget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, SelectField, StringField

    def field(about: Mapping[str, Any]) -> Any:
        schema = about["schema"]
        what = {"label": lazy_gettext(about["label"]), "description": about["description"]}
        if "enum" in schema:
            return SelectField(
                **what, choices=schema["enum"], default=schema["default"], widget=Select2Widget()
            )
        if "boolean" in schema["type"]:
            return BooleanField(**what, default=schema["default"])
        default = schema.get("default")
        return StringField(
            **what, default=None if default is None else str(default), widget=BS3TextFieldWidget()
        )

    return {name: field(about) for name, about in fields.items()}
