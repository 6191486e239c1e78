"""Write docs/faults.md: what every fault does to every call, from real runs of both clients.

The runs are those of the tests, which also compare the page with what comes of them.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests.contract.drivers import Blocking
    from tests.contract.faults.matrix import measure
    from tests.contract.faults.page import render
    from tests.contract.faults.table import CALLS

    # The emulator's server says of each client that left early that it left.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    columns = measure()
    page = ROOT / "docs" / "faults.md"
    page.write_text(render({call: columns[Blocking, call] for call in CALLS}))
    print(f"Wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
