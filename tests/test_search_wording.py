"""A number and its noun agree."""

import pytest

from search.wording import counted

pytestmark = pytest.mark.timeout(20)


@pytest.mark.parametrize(("number", "said"), [
    (0, "0 trials"), (1, "1 trial"), (2, "2 trials"), (1004, "1,004 trials"), (0.5, "0.5 trial"), (1.0, "1 trial"),
    (0.0, "0 trials"), (1.5, "1.5 trials")])
def test_one_is_no_plural(number: float, said: str) -> None:
    assert counted(number, "trial") == said
