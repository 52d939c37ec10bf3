"""Digits and symbols read out: every language, every form that it uses, and every number in it."""

import random

import pytest

from corpora.languages import LANGUAGES, Language, language
from corpora.numbers import spell_out
from corpora.text import foreign_letters, normalise, why_unusable

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_every_number_is_read_out_in_the_languages_letters(code: str) -> None:
    spoken, large = language(code), random.Random(0).sample(range(3000, 10**12), 100)
    for mark in ("", *spoken.ordinal_marks.split()):
        for number in (*range(1, 300), *range(300, 10_000, 37), 1000, 2000, 9000, *large):
            read = spell_out(f"{number}{mark}", spoken)
            assert not any(char.isdigit() for char in read) and foreign_letters(read, spoken) == "", (number, mark)
            assert not set(normalise(read, spoken)) - set(spoken.alphabet)


@pytest.mark.parametrize(("code", "raw", "read"), [
    ("fr", "180e, 200e, 1100e", "cent quatre vingtième deux centième mille centième"),
    ("ca", "30è, 90è, 130è, 200è, 1000è", "trentè norantè cent trentè dos centè milè"),
    ("pt", "R$ 5 e $ 6", "cinco reais e seis dólares"),
    ("fr", "la 2de et le 2nd", "la seconde et le second"),
    ("es", "el 1er, el 3.er y la 3era", "el primer el tercer y la tercera"),
    ("es", "el 4to y la 2da", "el cuarto y la segunda"),
    ("es", "10 000 y 1\u202f500\u00a0000", "diez mil y un millón quinientos mil"),
    ("it", "10 000", "diecimila"),
    ("es", "nº 5, Nº5, n.º 5, n° 5 y n.° 5", "número cinco número cinco número cinco número cinco y número cinco"),
    ("it", "l'80%, nell’800 e l'11", "l'ottanta per cento nell'ottocento e l'undici"),
    ("en", "the '80s", "the eighties"),
    ("it", "n° 5", "numero cinque"),
    ("pt", "n° 5 e n.º 6", "número cinco e número seis"),
    ("ca", "nº 5", "número cinc"),
    ("en", "the 1980s, 90s and 1900s", "the nineteen eighties nineties and nineteen hundreds"),
    ("en", "at sixes and 6s, 3.5s", "at sixes and sixes three point five"),
    ("fr", "1.234,5 et 3.5", "mille deux cent trente quatre virgule cinq et trois point cinq"),
])
def test_numbers_that_num2words_alone_gets_wrong(code: str, raw: str, read: str) -> None:
    assert normalise(raw, language(code)) == read


def test_language_without_num2words_keeps_digits_and_reads_its_symbols() -> None:
    spoken = Language(code="gl", letters="abcdefghijklmnñopqrstuvwxyz", symbols={"%": "por cento"})
    assert spell_out("5 %", spoken) == "5  por cento "
    assert spell_out("a.b. %", Language(code="gl", letters="ab")) == "ab. %"


@pytest.mark.parametrize(("code", "raw"), [
    ("en", "$5 million"), ("en", "a $5 bill"), ("es", "$5 millones"), ("pt", "R$ 5 milhões"), ("fr", "mide 5 m²"),
    ("es", "1½ kilos"), ("it", "H₂O"), ("ca", "el segle Ⅷ"),
])
def test_number_whose_reading_cannot_be_told_leaves_its_clip_out(code: str, raw: str) -> None:
    spoken = language(code)
    reason, said = why_unusable(raw, normalise(raw, spoken), spoken) or ("", "")
    assert reason == "digits" and repr(raw) in said
