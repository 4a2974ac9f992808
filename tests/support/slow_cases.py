"""Parametrised tests of which only the most telling cases are in the fast set."""

from collections.abc import Container, Iterable
from typing import Any

import pytest


def slow_except(fast: Container, cases: Iterable) -> list[Any]:
    """Cases for `pytest.mark.parametrize`, all of them marked slow but those in ``fast``."""
    slow = pytest.mark.slow
    return [case if case in fast else pytest.param(case, marks=slow) for case in cases]
