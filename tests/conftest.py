"""Options of the test suite.

Hypothesis tries the same examples on every run, so that a run says something about the change and
not about luck; `--hypothesis-profile=explore` looks for new ones, and `nightly` tries 100 times as
many (`make nightly`). None has a deadline: machines are shared.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest
from hypothesis import settings

from tilewright.dialects import plugins

settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.register_profile("nightly", deadline=None, max_examples=10_000)
settings.load_profile("same")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bless", action="store_true", help="write tests/golden anew instead of comparing with it"
    )


@pytest.fixture(autouse=True)
def _forget_loaded_files() -> Generator[None]:
    """What a test loads with `tw --load` is not there for the next one in the process."""
    with plugins.temporarily():
        yield


@pytest.fixture
def bless(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written."""
    return bool(request.config.getoption("--bless"))
