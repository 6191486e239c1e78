"""Build wheel and source distribution so that the same commit gives the same bytes: ``build.py [OUTDIR]``.

The time in both is that of the last commit, or ``SOURCE_DATE_EPOCH``. setuptools keeps to it in the wheel;
the source distribution is packed again without the builder's clock, user and order of files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def moment() -> int:
    """Return the epoch seconds that files in the distributions get."""
    if told := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(told)
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    committed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if not committed:
        raise SystemExit("This is no git checkout: set SOURCE_DATE_EPOCH to the release's time.")
    return int(committed)


def pack_again(archive: Path, epoch: int) -> None:
    """Rewrite a source distribution without what depends on who built it, and when."""
    packed = io.BytesIO()
    with (
        tarfile.open(archive) as old,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    archive.write_bytes(gzip.compress(packed.getvalue(), mtime=epoch))


def main(outdir: str = "dist") -> None:
    epoch = moment()
    os.umask(0o022)
    target = Path(outdir)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(ROOT)]
    subprocess.run(command, check=True, env=os.environ | {"SOURCE_DATE_EPOCH": str(epoch)})
    for built in sorted(target.glob("*.tar.gz")):
        pack_again(built, epoch)
    for built in sorted(target.iterdir()):
        print(f"{hashlib.sha256(built.read_bytes()).hexdigest()}  {built.name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
