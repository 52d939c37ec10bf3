"""Letters and marks that are not what they look like, and text that nobody says as it is written."""

import pytest

from corpora.languages import LANGUAGES, Language
from corpora.text import normalise, why_unusable

SPANISH = LANGUAGES["es"]


@pytest.mark.parametrize(("letters", "raw", "text"), [
    ("aăâbcdefghiîjklmnopqrsștțuvwxyz", "\u0163ar\u0103 \u015fi", "\u021bar\u0103 \u0219i"),
    ("aàbcđe", "\u00d0\u00c0", "đà"), ("abcçdeəf", "\u01dd\u04d9", "əə"),
])
def test_letters_that_look_alike_are_the_languages_own(letters: str, raw: str, text: str) -> None:
    assert normalise(raw, Language(code="xx", letters=letters)) == text


@pytest.mark.parametrize("raw", ["tod@s", "Los niñ@s y ellos", "canâ€™t", "Ã©l habÃ\xada", "maÃ±ana"])
def test_text_that_is_written_as_nobody_says_it_leaves_its_clip_out(raw: str) -> None:
    reason, _ = why_unusable(raw, normalise(raw, SPANISH), SPANISH) or ("", "")
    assert reason == "foreign_letters"


@pytest.mark.parametrize("raw", ["ana@correo.es", "São", "él había", "mañana»"])
def test_address_and_accents_stay(raw: str) -> None:
    assert why_unusable(raw, normalise(raw, SPANISH), SPANISH) is None


@pytest.mark.parametrize("raw", ["''it's'' so", "``it's'' so", "it\\'s\\nso", '\\"it\\\'s\\" so'])
def test_doubled_apostrophes_and_escapes_are_no_letters(raw: str) -> None:
    assert normalise(raw, LANGUAGES["en"]) == "it's so"


def test_alphabet_with_marks_side_by_side_is_in_any_order() -> None:
    assert Language(code="th", letters="กขุูิี่้").letters.endswith("่้")
