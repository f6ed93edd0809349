"""Kernels that a test attaches are gone after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tilewright.passes.kernels.registry import temporarily


@pytest.fixture(autouse=True)
def temporary_kernels() -> Iterator[None]:
    with temporarily():
        yield
