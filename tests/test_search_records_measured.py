"""What was measured goes to a file and comes back, of this version or another."""

import json
from typing import Any

import pytest

from search.records.measured import (
    AgainstSource,
    ChoiceShare,
    DevRates,
    Example,
    Importance,
    Look,
    Mistakes,
    SplitRates,
    plain,
    read,
)

RATES = SplitRates(wer=0.3, wer_low=0.2, wer_high=0.4, cer=0.1, folded_wer=0.25, counts={"utterances": 20})
LOOK = Look(trial="0001", time="2026-01-01T00:00:00+00:00", clips=20, winner=RATES, source_as_it_stands=RATES,
            against_source=AgainstSource(difference=-0.1, low=-0.2, high=0.0),
            mistakes=Mistakes(winner={"words": [{"unit": "casa", "count": 2, "wrong": 1, "heard": ""}]}),
            examples=[Example(reference="la casa", hypothesis="la caza", before="lacas")])


@pytest.mark.parametrize("held", [RATES, LOOK, Look(trial="0001", winner=RATES), DevRates(wer=1, cer=1.0),
                                  Importance(shares={"optimizer": ChoiceShare(share=1.0, low=0.5, high=1, floor=0.1)})])
def test_what_is_written_comes_back(held: Any) -> None:
    assert read(type(held), json.loads(json.dumps(plain(held), allow_nan=False))) == held
    assert read(list[type(held)], plain([held, held])) == [held, held]  # type: ignore[misc]


def test_rates_are_asked_for_by_name() -> None:
    assert (RATES.rate("wer"), RATES.interval("wer"), RATES.rate("cer"), RATES.interval("cer")) == (
        0.3, (0.2, 0.4), 0.1, None)
    assert RATES.num_utterances == 20


def test_what_there_is_not_is_not_in_the_file() -> None:
    assert list(plain(Look(trial="0001", winner=RATES))) == ["trial", "clips", "winner"]
    assert plain(RATES)["cer_low"] is None


def test_fields_of_other_versions_are_left_out_wherever_they_are() -> None:
    later = plain(LOOK) | {"more": 1}
    later["winner"] |= {"more": 1}
    later["examples"][0] |= {"more": 1}
    assert read(Look, later) == LOOK


@pytest.mark.parametrize("change", [
    {"trial": None}, {"winner": {"wer": 0.3}}, {"winner": None}, {"clips": "many"}, {"examples": [1]},
    {"against_source": {"difference": "x"}}, {"mistakes": ["x"]}])
def test_value_of_another_type_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        read(Look, plain(LOOK) | change)
