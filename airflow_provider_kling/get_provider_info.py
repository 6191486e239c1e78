"""What Airflow reads about this provider: what it contains, its connection type, and that type's form.

Airflow calls :func:`get_provider_info` in every process, so this module imports next to nothing.
From 3.2 on the form comes from here and the hook is not imported; before, it comes from
:class:`~airflow_provider_kling.hooks.kling.KlingHook`, which takes it from here too.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_kling.api.settings import (
    DEFAULT_BASE_URL,
    DEFAULT_CONNECT_TIMEOUT,
    DEFAULT_READ_TIMEOUT,
    GENERATION_PATHS,
    HIGHEST_RATE,
    LOWEST_RATE,
    VENDOR_PATH,
)

CONNECTION_TYPE = "kling"
DEFAULT_CONNECTION_ID = "kling_default"
HOOK_NAME = "Kling (AI/ML API)"
_INTEGRATION = "Kling"

CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "generation_path": {
        "label": "Generation path",
        "description": "The vendor's endpoint for submits and polls. Both take the same requests.",
        "schema": {
            "type": ["string", "null"],
            "enum": list(GENERATION_PATHS),
            "default": VENDOR_PATH,
        },
    },
    "connect_timeout": {
        "label": "Connect timeout",
        "description": "Seconds that a connection to the vendor may take: name, TCP, proxy and TLS together.",
        "schema": {
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "default": DEFAULT_CONNECT_TIMEOUT,
        },
    },
    "read_timeout": {
        "label": "Read timeout",
        "description": "Seconds that a whole answer may take once the request is sent; a download must bring "
        "256 KiB in each such span.",
        "schema": {
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "default": DEFAULT_READ_TIMEOUT,
        },
    },
    "ca_bundle": {
        "label": "CA bundle",
        "description": "Path of a PEM file with the certificate authorities to trust, on every "
        "worker and triggerer. Empty: the usual ones.",
        "schema": {"type": ["string", "null"]},
    },
    "proxy": {
        "label": "Proxy",
        "description": "URL of an HTTP proxy, for example http://proxy.example.com:3128.",
        "schema": {"type": ["string", "null"]},
    },
    "allow_plain_http": {
        "label": "Allow plain http",
        "description": "Send the API key unencrypted to a host that is not this machine.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    "allow_private_network": {
        "label": "Allow private network",
        "description": "Fetch videos from private and link-local addresses too, as for a CDN of your own.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    "requests_per_minute": {
        "label": "Requests per minute",
        "description": "What each process sends at most over this connection; the vendor counts over all "
        "of them. Empty: as much as the vendor lets through.",
        "schema": {"type": ["number", "null"], "minimum": LOWEST_RATE, "maximum": HIGHEST_RATE},
    },
    "max_cost_usd": {
        "label": "Highest cost",
        "description": "USD that one generation may cost, by the vendor's price list, where its task sets "
        "no limit of its own. Empty: no limit.",
        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0},
    },
}
"""The connection's extra fields: name -> label, description, and JSON schema with its default.

The shape is that of ``conn-fields`` in Airflow 3.2; the defaults are those of
:class:`~airflow_provider_kling.api.settings.Settings`.
"""

HIDDEN_FIELDS = ["schema", "login", "port"]
RELABELING = {"password": "API key", "host": "Base URL"}
PLACEHOLDERS = {"password": "the key of your AI/ML API account", "host": DEFAULT_BASE_URL}


def _modules(*names: str) -> list[dict[str, Any]]:
    modules = [f"airflow_provider_kling.{name}" for name in names]
    return [{"integration-name": _INTEGRATION, "python-modules": modules}]


def get_provider_info() -> dict[str, Any]:
    """Describe the provider to Airflow; the entry point ``apache_airflow_provider`` names it."""
    return {
        "package-name": "airflow-provider-kling",
        "name": "Kling",
        "description": "Videos from pictures and prompts, by Kling models behind the AI/ML API.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.aimlapi.com/",
                "how-to-guide": [
                    "/docs/start.md",
                    "/docs/operators/generate.md",
                    "/docs/operators/sensor.md",
                    "/docs/operators/download.md",
                    "/docs/operators/batch.md",
                    "/docs/operators/reconcile.md",
                    "/docs/operators/task-decorator.md",
                ],
                "tags": ["ai", "generative-ai", "service"],
            }
        ],
        "hooks": _modules("hooks.kling"),
        "operators": _modules(
            "operators.kling", "operators.batch", "operators.download", "operators.reconcile"
        ),
        "sensors": _modules("sensors.kling"),
        "triggers": _modules("triggers.kling", "triggers.batch", "triggers.submit_search"),
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-class-name": "airflow_provider_kling.hooks.kling.KlingHook",
                "hook-name": HOOK_NAME,
                "ui-field-behaviour": {
                    "hidden-fields": HIDDEN_FIELDS,
                    "relabeling": RELABELING,
                    "placeholders": PLACEHOLDERS,
                },
                "conn-fields": CONNECTION_FIELDS,
            }
        ],
        "extra-links": [
            "airflow_provider_kling.links.kling.KlingVideoLink",
            "airflow_provider_kling.links.kling.KlingGalleryLink",
            "airflow_provider_kling.links.kling.KlingSavedFileLink",
        ],
        "plugins": [
            {"name": "kling", "plugin-class": "airflow_provider_kling.ui.plugin.KlingPlugin"},
        ],
        "task-decorators": [
            {
                "name": "kling_generate",
                "class-name": "airflow_provider_kling.decorators.kling.kling_generate_task",
            },
            {
                "name": "kling_batch",
                "class-name": "airflow_provider_kling.decorators.kling.kling_batch_task",
            },
        ],
    }
