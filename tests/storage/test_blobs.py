"""Files by their content: whole, synced and named by nothing a sender chose."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from hub.storage.blobs import Blobs


def test_what_is_put_is_got_and_named_by_its_digest(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "files")
    for data in (b"", b"x", os.urandom(300_000)):
        name = blobs.put(data)
        assert name == hashlib.sha256(data).hexdigest()
        assert blobs.get(name) == data
        assert blobs.path(name).parent.name == name[:2]


def test_the_same_bytes_are_kept_once(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    path = blobs.path(blobs.put(b"again"))
    before = path.stat().st_ino
    blobs.put(b"again")
    assert path.stat().st_ino == before
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


@pytest.mark.parametrize(
    "name",
    ["", "../../etc/passwd", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "/" + "a" * 63, "a" * 62 + "/."],
)
def test_only_a_digest_names_a_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        Blobs(tmp_path).path(name)


def test_bytes_names_and_directories_are_synced_before_the_name_is_given_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see which file was synced")
    blobs = Blobs(tmp_path)
    name = blobs.put(b"durable")
    # The bytes under their first name, then the name itself and that of its directory.
    first = [".partial", name[:2], tmp_path.name]
    assert [Path(path).name.partition("-")[0] if "partial" in path else Path(path).name for path in synced] == first
    # Somebody else may have written the file a moment ago and not have synced its name yet.
    synced.clear()
    blobs.put(b"durable")
    assert [Path(path).name for path in synced] == first[1:]
    synced.clear()
    Blobs(tmp_path / "made").put(b"durable")
    assert Path(synced[0]).name == tmp_path.name, "a new store's own name too"


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    blobs = Blobs(tmp_path)
    kept = blobs.put(b"kept")
    (tmp_path / hashlib.sha256(b"lost").hexdigest()[:2]).mkdir(exist_ok=True)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        blobs.put(b"lost")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [blobs.path(kept)]
    monkeypatch.undo()
    assert blobs.get(blobs.put(b"lost")) == b"lost"


def test_a_file_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Blobs(tmp_path).get("0" * 64)
