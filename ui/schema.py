"""Write the OpenAPI document of the plugin's app, from which the types of its page are generated."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("AIRFLOW_HOME", tempfile.gettempdir())  # Airflow writes its configuration there

from airflow_provider_kling.ui.app import app  # Airflow reads its home when it is imported


def document() -> str:
    """The document, the same text for the same routes."""
    found = app().openapi()
    found["info"]["version"] = "0"  # the page does not depend on the package's version
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document())
