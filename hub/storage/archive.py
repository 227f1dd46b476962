"""The file of a backup: a tar archive that ordinary tools can open and check.

    hub.db               the database, always as SQLite, whatever engine it came from
    files/ab/abcd…       attachments and large bodies, each named by the SHA-256 of its bytes
    secret               what signs the hub's tokens (unless left out)
    manifest.json        version, schema step, time, rows and digest of every table
    SHA256SUMS           the digest of everything above, and last of all: an archive without it is not whole

`tar xf` and `sha256sum -c SHA256SUMS` check it without a hub. A name that ends in `.gz` makes it compressed.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from hub.storage.blobs import sync_directory

DATABASE = "hub.db"
SECRET = "secret"  # noqa: S105  (a name)
MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
FORMAT = 1
BLOCK = 1 << 20

_FILE = re.compile(r"files/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_SUM = re.compile(r"([0-9a-f]{64})  (\S+)")


class ArchiveDamaged(Exception):
    """The archive is not what was written; the text names what is wrong. Nothing was restored from it."""


class ArchiveExists(Exception):
    """A file of that name is there already. It was not touched."""


def file_name(sha256: str) -> str:
    """Where a stored file lies in an archive."""
    return f"files/{sha256[:2]}/{sha256}"


class _Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data


class ArchiveWriter:
    """Writes `path` under another name, and gives it its own only when all is written and synced."""

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        """Raises ArchiveExists, OSError."""
        if path.exists() and not replace:
            raise ArchiveExists(f"{path} is there already. Nothing was written: name another file, or add --force.")
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        # It holds every customer's messages, and the secret: for the account that made it alone.
        self._file = os.fdopen(os.open(self._partial, os.O_WRONLY | os.O_CREAT, 0o600), "wb")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise ArchiveExists(f"Another backup is being written to {path} at this moment. This one was not begun.") from error
        self._file.truncate()
        self._file.flush()
        self._zip = gzip.GzipFile("", "wb", 1, self._file) if path.suffix in (".gz", ".tgz") else None
        self._tar = tarfile.TarFile(fileobj=self._zip or self._file, mode="w", format=tarfile.PAX_FORMAT)
        self._sums: list[str] = []
        self._now = int(time.time())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._file.closed:  # not finished: something failed
            self._partial.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                if self._zip is not None:
                    self._zip.close()
                self._file.close()

    def add(self, name: str, file: IO[bytes], size: int) -> None:
        """Add a file's bytes. Raises OSError if it turns out shorter."""
        member = tarfile.TarInfo(name)
        member.size = size
        member.mode = 0o600
        member.mtime = self._now
        hashing = _Hashing(file)
        self._tar.addfile(member, hashing)
        self._tar.members.clear()  # type: ignore[attr-defined]  # it would keep every one
        self._sums.append(f"{hashing.sha256.hexdigest()}  {name}\n")

    def add_bytes(self, name: str, data: bytes) -> None:
        self.add(name, io.BytesIO(data), len(data))

    def finish(self, manifest: dict[str, Any]) -> int:
        """Close the archive and give it its name; its size. On return it survives a power cut."""
        self.add_bytes(MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=True).encode() + b"\n")
        self.add_bytes(SUMS, "".join(self._sums).encode())
        self._tar.close()
        if self._zip is not None:
            self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._partial.replace(self._path)
        self._file.close()
        sync_directory(self._path.parent)
        return size


Sink = Callable[[str], IO[bytes] | None]


def read(path: Path, sink: Sink = lambda name: None) -> dict[str, Any]:
    """Read a whole archive, check every digest, and return its manifest; `sink` says where each member's bytes go.

    What went to a sink counts for nothing until this returned. Raises ArchiveDamaged, OSError.
    """
    found: dict[str, str] = {}
    small: dict[str, bytes] = {}
    last = "its beginning"
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                name = member.name
                if not member.isreg() or name in found or not (name in (DATABASE, SECRET, MANIFEST, SUMS) or _FILE.fullmatch(name)):
                    raise ArchiveDamaged(f"{path}: {name[:100]!r} does not belong in a backup. Nothing was restored.")
                found[name], small[name] = _take(tar.extractfile(member), sink(name), keep=name in (MANIFEST, SUMS))
                inside = _FILE.fullmatch(name)
                if inside and inside.group(2) != found[name]:
                    raise ArchiveDamaged(f"{path}: {name} is damaged: its bytes have another digest. Nothing was restored.")
                last = name
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep every one
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ArchiveDamaged(f"{path} is damaged or cut short after {last} ({error}). Nothing was restored.") from error
    if SUMS not in found:
        raise ArchiveDamaged(f"{path} is damaged or cut short after {last}: {SUMS}, which comes last, is missing. Nothing was restored.")
    _check(path, small[SUMS], found)
    return _manifest(path, small[MANIFEST])


def _take(file: IO[bytes] | None, out: IO[bytes] | None, *, keep: bool) -> tuple[str, bytes]:
    """The digest of a member, and its bytes if they are wanted; synced where they went."""
    digest = hashlib.sha256()
    kept = bytearray()
    with out or contextlib.nullcontext():
        while file is not None and (data := file.read(BLOCK)):
            digest.update(data)
            if out is not None:
                out.write(data)
            if keep:
                kept += data
        if out is not None:
            out.flush()
            os.fsync(out.fileno())
    return digest.hexdigest(), bytes(kept)


def _check(path: Path, sums: bytes, found: dict[str, str]) -> None:
    wanted: dict[str, str] = {}
    for line in sums.decode("ascii", "replace").splitlines():
        match = _SUM.fullmatch(line)
        if match is None:
            raise ArchiveDamaged(f"{path}: {SUMS} is damaged. Nothing was restored.")
        wanted[match.group(2)] = match.group(1)
    for name in wanted:
        if name not in found:
            raise ArchiveDamaged(f"{path}: {name} is missing, though {SUMS} lists it. Nothing was restored.")
    for name, digest in found.items():
        if name != SUMS and wanted.get(name) != digest:
            raise ArchiveDamaged(f"{path}: {name} is damaged: its digest is not the one in {SUMS}. Nothing was restored.")
    for name in (DATABASE, MANIFEST):
        if name not in found:
            raise ArchiveDamaged(f"{path}: {name} is missing. Nothing was restored.")


def _manifest(path: Path, data: bytes) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(data)
    if manifest.get("format") != FORMAT:
        raise ArchiveDamaged(
            f"{path} has format {manifest.get('format')!r}, this hub reads {FORMAT}. Nothing was restored: use the hub that wrote it "
            f"(version {manifest.get('hub')})."
        )
    return manifest
