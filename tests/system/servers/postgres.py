"""PostgreSQL databases that live as long as a test."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import Final

import psycopg2
import pytest

POSTGRES: Final = os.environ.get("KLING_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
"""A server on which databases may be created and dropped."""


@contextlib.contextmanager
def database() -> Iterator[str]:
    """Make a database, and drop it at the end; yields its URL.

    Without a server the test is skipped, or fails where ``CI`` is set.
    """
    name = f"kling_test_{secrets.token_hex(6)}"
    try:
        server = psycopg2.connect(POSTGRES, connect_timeout=5)
    except psycopg2.OperationalError as error:
        message = (
            f"These tests need a PostgreSQL server at {POSTGRES} (or where KLING_TEST_POSTGRES says): "
            f"start one that lets its user create databases. {error}"
        )
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    server.autocommit = True
    with contextlib.closing(server), server.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{POSTGRES.rpartition('/')[0]}/{name}"
        finally:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
