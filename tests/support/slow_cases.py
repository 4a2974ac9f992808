"""Parametrised tests of which only the most telling cases are in the fast set."""

from collections.abc import Container, Iterable
from typing import Any

import pytest


def slow_except(fast: Container, cases: Iterable) -> list[Any]:
    """Cases for `pytest.mark.parametrize`, all of them marked slow but those in ``fast``."""

    def slow(case: Any) -> Any:
        values = case if isinstance(case, tuple) else (case,)
        return pytest.param(*values, marks=pytest.mark.slow)

    return [case if case in fast else slow(case) for case in cases]
