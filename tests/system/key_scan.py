"""Where in a deployment a secret is: every file, and every row of the database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.system.cluster import AirflowCluster


def found(secrets: Mapping[str, str], texts: Iterator[tuple[str, str]]) -> list[tuple[str, str]]:
    """Where which secret is, by its name."""
    return sorted(
        {(where, what) for where, text in texts for what, secret in secrets.items() if secret in text}
    )


def texts_in_files(home: Path) -> Iterator[tuple[str, str]]:
    """Each file below a folder with what it holds, also where that is binary."""
    for path in sorted(home.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(home)), path.read_bytes().decode("latin-1")


def texts_in_database(cluster: AirflowCluster) -> Iterator[tuple[str, str]]:
    """Each row of each table as text; bytes, which are shown as hexadecimal, as what they say."""
    tables = cluster.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    for name in (row["table_name"] for row in tables):
        for row in cluster.rows(f'SELECT "{name}"::text AS text FROM "{name}"'):
            yield (
                name,
                re.sub(r"\\x([0-9a-f]+)", lambda hit: bytes.fromhex(hit[1]).decode("latin-1"), row["text"]),
            )
