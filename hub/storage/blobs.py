"""Large bodies and attachments: content-addressed files, whole and synced before the row that names them commits."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class Blobs:
    """A directory of files named by the SHA-256 of their bytes. A sender's file name is never part of a path."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, sha256: str) -> Path:
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise ValueError("not a SHA-256 in lower-case hex")
        return self._root / sha256[:2] / sha256

    def put(self, data: bytes) -> str:
        """Store bytes; their SHA-256. On return they survive a power cut. Raises OSError (disk full)."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path(sha256)
        if not path.exists():
            self._write(path, data)
        # Even for a file that was there: whoever put it may be about to sync it only now.
        sync_directory(path.parent)
        sync_directory(self._root)
        return sha256

    def _write(self, path: Path, data: bytes) -> None:
        if not self._root.is_dir():
            self._root.mkdir(parents=True, exist_ok=True)
            sync_directory(self._root.parent)
        path.parent.mkdir(exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise

    def get(self, sha256: str) -> bytes:
        """The bytes. Raises FileNotFoundError."""
        return self.path(sha256).read_bytes()
