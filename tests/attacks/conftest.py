"""How many attacks there are: `gate` in each run of the tests, `long` with `--hypothesis-profile long`."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from tests.attacks.sandbox import Sandbox

COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "print_blob": False}
settings.register_profile("gate", max_examples=24, derandomize=True, **COMMON)
settings.register_profile("long", max_examples=1000, **COMMON)
settings.load_profile("gate")


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """The process that reads what is attacked."""
    box = Sandbox()
    yield box
    box.close()
