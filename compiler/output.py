"""Files that appear whole or not at all: written beside their destination, renamed when they are
complete."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from tilewright.dialects.errors import StorageError

Data = bytes | bytearray | memoryview


class OutputFile:
    """A file under construction: positioned writes from any thread. Every failure is a
    `StorageError`."""

    def __init__(self, descriptor: int, destination: Path) -> None:
        self.descriptor = descriptor
        self.destination = destination

    def write_at(self, offset: int, data: Data) -> None:
        """Writes all of `data` at byte `offset`."""
        view = memoryview(data).cast("B")
        with storage_errors(self.destination):
            while view:
                written = os.pwrite(self.descriptor, view, offset)
                view, offset = view[written:], offset + written

    def require_space(self, size_bytes: int) -> None:
        """Raises `StorageError` now where `size_bytes` more will not fit the disk later."""
        free = shutil.disk_usage(self.destination.parent).free
        if size_bytes > free:
            raise StorageError(
                "not enough space on the disk",
                where=str(self.destination),
                why=f"{size_bytes:,} bytes are needed, {free:,} are free",
                hint="free some space, or write to another disk",
            )


@contextmanager
def storage_errors(destination: Path) -> Generator[None]:
    """Turns an `OSError` of the body into a `StorageError` that names the destination."""
    try:
        yield
    except OSError as error:
        no_space = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise StorageError(
            "no space left for the output" if no_space else "the output cannot be written",
            where=str(destination),
            why=error.strerror or str(error),
            hint="free some space, or write to another disk"
            if no_space
            else "choose a place that exists and that you may write to",
        ) from error


@contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Generator[OutputFile]:
    """A temporary file beside `path` that takes its place when the body ends, and vanishes when the
    body raises.

    `path` keeps what it held until then. Raises `StorageError` where the place does not exist, is
    not a regular file or may not be written.
    """
    destination = Path(os.path.realpath(path))
    if destination.exists() and not destination.is_file():
        raise StorageError(
            "the output is not a regular file",
            where=str(path),
            hint="give the name of a file, not of a folder or device",
        )
    partial = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.partial")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    with storage_errors(destination):
        descriptor = os.open(partial, flags, 0o666)
    try:
        try:
            yield OutputFile(descriptor, destination)
        finally:
            with storage_errors(destination):
                os.close(descriptor)
        with storage_errors(destination):
            os.replace(partial, destination)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes a small file at once (text as UTF-8); raises `StorageError`."""
    with atomic_output(path) as output:
        output.write_at(0, data.encode() if isinstance(data, str) else data)
