"""Which Airflow a test here needs."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from packaging.version import Version


def needs_airflow(oldest: str) -> pytest.MarkDecorator:
    """Skip on an older Airflow; its processes and tables are others."""
    return pytest.mark.skipif(
        Version(version("apache-airflow")) < Version(oldest), reason=f"made for Airflow {oldest} and newer"
    )
