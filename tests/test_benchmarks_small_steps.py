"""The benchmark of small steps trains a real trial between the bare network's turns."""

import pytest
import small_steps

pytestmark = pytest.mark.timeout(120)


def test_table_of_a_small_network_is_whole() -> None:
    given = small_steps.arguments(["--network", "narrow", "--small", "6", "--large", "20", "--turns", "2",
                                   "--steps", "2", "--threads", "1", "--precisions", "float32"])
    _, head, row = small_steps.table(given)
    cells = [float(cell.strip(" %")) for cell in row.strip("|").split("|")[1:]]
    assert len(cells) == 5 and all(cell > 0 for cell in cells) and head.count("|") == row.count("|")
    large, small, trial, *shares = cells
    assert shares == pytest.approx([100 * small / large, 100 * trial / large], abs=1)
