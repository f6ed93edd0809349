"""Archives past 4 GiB: no data is written, only the structure is made and parsed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tilewright.compiler.artifact import archive
from tilewright.compiler.artifact.archive import Member
from tilewright.dialects.errors import ArtifactError

GIB = 1 << 30


@pytest.mark.parametrize("size", [0, 1, 4 * GIB - 8192, 4 * GIB - 1, 4 * GIB, 5 * GIB + 3])
def test_large_archives(tmp_path: Path, size: int) -> None:
    members: list[Member] = []
    end = 0
    for name in archive.MEMBERS:
        offset = archive.data_offset(name, end)
        assert offset % archive.ALIGNMENT == 0
        length = size if name == archive.WEIGHTS else 0
        members.append(Member(name, offset, length, 0))
        end = members[-1].end
    path = tmp_path / "large.twm"
    with path.open("wb") as file:
        for offset, content in archive.structure(
            members, archive.comment(archive.FORMAT_VERSION, "ab" * 32)
        ):
            file.seek(offset)
            file.write(content)
    import mmap

    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    parsed, digest = archive.parse(data, "large")
    assert parsed == members
    assert digest == "ab" * 32
    with zipfile.ZipFile(path) as other:
        sizes = {info.filename: info.file_size for info in other.infolist()}
        assert sizes == {member.name: member.size_bytes for member in members}
        for name in archive.MEMBERS[1:]:
            assert other.read(name) == b""


def test_a_directory_that_points_nowhere() -> None:
    end = bytearray(archive._END.pack(0x06054B50, 0, 0, 4, 4, 0, 1 << 20, 0))  # pyright: ignore[reportPrivateUsage]
    data = bytes(end) + archive.comment(archive.FORMAT_VERSION, "0" * 64)
    with pytest.raises(ArtifactError, match="structure"):
        archive.parse(memoryview(data), "here")
