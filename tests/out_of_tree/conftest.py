"""The packages under `acme` and `generated` are installed by tests; their own tests run there."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.out_of_tree.installed import Installation, install

collect_ignore = ["acme", "generated"]


@pytest.fixture(scope="session")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The sample package, installed from a copy outside of the repository."""
    return install(Path(__file__).parent / "acme", tmp_path_factory.mktemp("acme"))
