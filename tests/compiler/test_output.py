"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tilewright.compiler.output import atomic_output, write_atomically
from tilewright.dialects.errors import StorageError


def test_text_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_atomically(path, "old, and long")
    write_atomically(path, "Grüße")
    assert path.read_text() == "Grüße"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    write_atomically(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_bytes() == b"x"


@pytest.mark.parametrize("place", [".", "/dev/null"])
def test_only_regular_files(tmp_path: Path, place: str) -> None:
    with pytest.raises(StorageError, match="not a regular file"):
        write_atomically(tmp_path / place, "x")


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written") as caught:
        write_atomically(tmp_path / "none" / "x", "x")
    assert "No such file" in str(caught.value)


def _fill_disk(path: Path) -> None:
    with atomic_output(path) as output:
        output.write_at(0, b"begun")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        _fill_disk(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tilewright.compiler.output.os.pwrite", full)
    with pytest.raises(StorageError, match="no space left"):
        write_atomically(tmp_path / "x", "x")
    assert list(tmp_path.iterdir()) == []


class _Usage:
    free = 1


def test_a_full_disk_is_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilewright.compiler.output.shutil.disk_usage", lambda _: _Usage())
    with atomic_output(tmp_path / "x") as output:
        output.require_space(1)
        with pytest.raises(StorageError, match="not enough space"):
            output.require_space(2)


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(
        "tilewright.compiler.output.os.pwrite", lambda fd, data, at: pwrite(fd, data[:3], at)
    )
    write_atomically(tmp_path / "x", "0123456789")
    assert (tmp_path / "x").read_text() == "0123456789"
