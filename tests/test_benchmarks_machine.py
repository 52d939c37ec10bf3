"""The costs by which the benchmark judges times."""

import machine
import pytest

from models.quartznet import named_network


def test_operations_are_counted_as_published() -> None:
    assert machine.multiplications(named_network("15x5"), 1.0) == pytest.approx(1.885e9, rel=0.01)
