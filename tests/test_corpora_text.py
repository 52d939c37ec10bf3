"""The frozen reference: what becomes of a transcript, character by character."""


import pytest

from corpora.text import LANGUAGES, fold_accents, foreign_letters, language, normalise

pytestmark = pytest.mark.timeout(30)

SPANISH, ENGLISH = language("es"), language("en")


def test_alphabets_are_in_nemo_label_order() -> None:
    assert ENGLISH.alphabet == " abcdefghijklmnopqrstuvwxyz'"
    assert SPANISH.alphabet == " abcdefghijklmnopqrstuvwxyzáéíñóúü"


def test_unknown_language_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(ValueError, match=r"language is 'xx'; it must be one of en, es, it"):
        language("xx")


@pytest.mark.parametrize(
    ("raw", "reference"),
    [
        ("¡Hola, MUNDO!", "hola mundo"),
        ('«Aquí» —dijo— "Frederick Henry".', "aquí dijo frederick henry"),
        ("El pingüino ÑANDÚ", "el pingüino ñandú"),
        ("man\u0303ana, cafe\u0301", "mañana café"),
        ("Ångström, façade, à Gödel, Straße", "angstrom facade a godel strasse"),
        ("d’Artagnan y O'Neill", "dartagnan y oneill"),
        ("ítalo-francés intra–Asterisk", "ítalo francés intra asterisk"),
        ("pues...no sé.Sí", "pues no sé sí"),
        ("la U.S.A.", "la usa"),
        ("so\u00adbre\u200b  todo\t\n", "sobre todo"),
        ("tengo 21 años", "tengo veintiuno años"),
        ("marque 1, 2 o 500", "marque uno dos o quinientos"),
        ("en 1990.", "en mil novecientos noventa"),
        ("1.234.567", "un millón doscientos treinta y cuatro mil quinientos sesenta y siete"),
        ("3,14 y 28.8 y 1,05", "tres coma catorce y veintiocho punto ocho y uno coma cero cinco"),
        ("el 1º y la 2ª", "el primero y la segunda"),
        ("007", "cero cero siete"),
        ("50 % de $20 a 25 °C", "cincuenta por ciento de veinte dólares a veinticinco grados c"),
        ("mp3", "mp tres"),
        ("", ""),
        ("¿...?", ""),
        ("Привет", ""),
    ],
)
def test_spanish_reference(raw: str, reference: str) -> None:
    assert normalise(raw, SPANISH) == reference


@pytest.mark.parametrize(
    ("raw", "reference"),
    [
        ("Don't STOP — it’s O‘Neill’s!", "don't stop it's o'neill's"),
        ("'Hello there,' he said", "hello there he said"),
        ("'tis the end", "'tis the end"),
        ("résumé, mañana", "resume manana"),
        ("1,234 in 1984", "one thousand two hundred and thirty four in nineteen eighty four"),
        ("the 21st, 0.5", "the twenty first zero point five"),
        ("twenty-one & ten", "twenty one and ten"),
    ],
)
def test_english_reference(raw: str, reference: str) -> None:
    assert normalise(raw, ENGLISH) == reference


@pytest.mark.parametrize(
    ("raw", "reference"),
    [
        ("Perché l’acqua? È più fredda!", "perché l'acqua è più fredda"),
        ("Il 25 % di 1.234,5", "il venticinque per cento di milleduecentotrentaquattro virgola cinque"),
        ("la 3ª volta, il 2º", "la terza volta il secondo"),
        ("señor Müller: 3.14", "senor muller tre punto quattordici"),
    ],
)
def test_italian_reference(raw: str, reference: str) -> None:
    assert normalise(raw, language("it")) == reference


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_reference_holds_the_alphabet_alone_whatever_comes(code: str) -> None:
    spoken = language(code)
    every_character = "".join(map(chr, range(0x3000))) + "𝐀😀\U0010ffff"
    for start in range(0, len(every_character), 16):
        reference = normalise(" ".join(every_character[start : start + 16]), spoken)
        assert set(reference) <= set(spoken.alphabet)
        assert reference == " ".join(reference.split())
        assert normalise(reference, spoken) == reference


def test_letters_that_are_dropped_are_named() -> None:
    assert foreign_letters("Слово ñ x 東 a", SPANISH) == "слов東"
    assert foreign_letters("¿Ángström? 25 ª", SPANISH) == ""


def test_accents_are_folded_and_all_else_is_kept() -> None:
    assert fold_accents("áéíóúüñ ÁÑ, ¡x!") == "aeiouun AN, ¡x!"
    assert fold_accents("plain") == "plain"
