"""The frozen reference: what becomes of a transcript, character by character, and what is told of it."""

import json

import pytest

from corpora.languages import LANGUAGES, Language, language
from corpora.text import (
    MOST_EXAMPLES,
    TextChanges,
    fold_accents,
    foreign_letters,
    merge_changes,
    normalise,
    why_unusable,
)

pytestmark = pytest.mark.timeout(30)

SPANISH, ENGLISH = language("es"), language("en")


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
        ("tengo 22 años", "tengo veintidós años"),
        ("marque 1, 2 o 500", "marque uno dos o quinientos"),
        ("en 1990.", "en mil novecientos noventa"),
        ("1.234.567", "un millón doscientos treinta y cuatro mil quinientos sesenta y siete"),
        ("3,4 y 28,8 y 1,05", "tres coma cuatro y veintiocho coma ocho y uno coma cero cinco"),
        ("el 1º y la 2ª", "el primero y la segunda"),
        ("50 % de 20 € y 25 £", "cincuenta por ciento de veinte euros y veinticinco libras"),
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
        ("señor Müller: 3,1", "senor muller tre virgola uno"),
    ],
)
def test_italian_reference(raw: str, reference: str) -> None:
    assert normalise(raw, language("it")) == reference


@pytest.mark.parametrize(
    ("raw", "reference"),
    [
        ("O Sr. João não foi à praça; comprou 3 pães por R$ 5!",
         "o sr joão não foi à praça comprou três pães por cinco reais"),
        ("Copo d’água, guarda-chuva e pau-d'arco.", "copo d'água guarda chuva e pau d'arco"),
        ("“Às 16”, disse-me o lingüista Müller.", "às dezesseis disse me o linguista muller"),
        ("A 1ª edição, o 3.º lugar e a 21ª volta",
         "a primeira edição o terceiro lugar e a vigésima primeira volta"),
        ("Em 1984, 10 % de 1.000 casas, nº 5",
         "em mil novecentos e oitenta e quatro dez por cento de mil casas número cinco"),
    ],
)
def test_portuguese_reference(raw: str, reference: str) -> None:
    assert normalise(raw, language("pt")) == reference


@pytest.mark.parametrize(
    ("raw", "reference"),
    [
        ("L’œuvre d’Hervé, c’est-à-dire « Le cœur », n’est plus là.",
         "l'oeuvre d'hervé c'est à dire le coeur n'est plus là"),
        ("Aujourd'hui, J'ai 22 ans et 80 €.", "aujourd'hui j'ai vingt deux ans et quatre vingts euros"),
        ("Le 1er août, la 1re fois, le 2e, la 3ème, la 2nde, la 80e",
         "le premier août la première fois le deuxième la troisième la seconde la quatre vingtième"),
        ("Il y a 1 234\u202f567 habitants\u00a0; soit 3,5\u00a0% de plus.",
         "il y a un million deux cent trente quatre mille cinq cent soixante sept habitants soit trois virgule cinq "
         "pour cent de plus"),
        ("Curriculum vitæ ; ex æquo, à L'Haÿ-les-Roses", "curriculum vitae ex aequo à l'hay les roses"),
        ("Ça ! Où ? Noël, naïf, aiguë, n° 12", "ça où noël naïf aiguë numéro douze"),
        ("M. et Mme Dupont, etc.", "m et mme dupont etc"),
    ],
)
def test_french_reference(raw: str, reference: str) -> None:
    assert normalise(raw, language("fr")) == reference


@pytest.mark.parametrize(
    ("raw", "reference"),
    [
        ("L’il·lustre col·legi: COL•LECCIÓ, intel‧ligent i coŀlecció.",
         "l'il·lustre col·legi col·lecció intel·ligent i col·lecció"),
        ("a · b, ·l l· ll", "a b l l ll"),
        ("Va anar-se'n d'hora; qüestió, raïm, plaça", "va anar se'n d'hora qüestió raïm plaça"),
        ("El 1r, la 1a, el 2n, el 4t, la 4a, el 5è, la 5a i el 30è",
         "el primer la primera el segon el quart la quarta el cinquè la cinquena i el trentè"),
        ("23 anys i el 25 % de 1.234,5",
         "vint i tres anys i el vint i cinc per cent de mil dos cents trenta quatre coma cinc"),
    ],
)
def test_catalan_reference(raw: str, reference: str) -> None:
    assert normalise(raw, language("ca")) == reference


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


# --- a language without number words ---------------------------------------------------------------------------------

TURKISH = Language(code="tr", letters="abcçdefgğhıijklmnoöprsştuüvyz")
SLOVAK = Language(code="sk", letters="aáäbcčdďeéfghiíjklĺľmnňoóôpqrŕsštťuúvwxyýzž", num2words="sk", decimal_mark=",",
                  decimal_words={",": "celá"}, ordinal_marks=".")
"""num2words has no ordinals of it."""


def test_transcript_that_is_no_reference_says_why() -> None:
    for raw, spoken, reason, detail in (
            ("Привет, Juan", SPANISH, "foreign_letters", "'Привет, Juan' holds 'привет', which 'es' cannot spell"),
            ("¿...?", SPANISH, "no_text", "'¿...?' holds no character of the alphabet of 'es'"),
            ("Saat 5", TURKISH, "digits", "'Saat 5' holds digits that 'tr', with no num2words, does not read out"),
            ("je 5. máj", SLOVAK, "digits", "'je 5. máj' holds digits that 'sk', with num2words 'sk', does not read")):
        found, said = why_unusable(raw, normalise(raw, spoken), spoken) or ("", "")
        assert found == reason and said.startswith(detail)
    for raw, spoken in (("Marque 5", SPANISH), ("je 5 máj", SLOVAK)):
        assert why_unusable(raw, normalise(raw, spoken), spoken) is None


def test_letters_of_a_language_are_kept_whatever_they_fold_to_elsewhere() -> None:
    assert normalise("ISPARTA'nın IŞIĞI, İyi wx", TURKISH) == "ıspartanın ışığı iyi wx".replace(" wx", "")


# --- what was changed ------------------------------------------------------------------------------------------------


def changes(*raws: str, code: str = "es") -> TextChanges:
    seen, spoken = TextChanges(language(code)), language(code)
    for raw in raws:
        seen.see(raw, normalise(raw, spoken))
    return seen


def test_changes_are_counted_by_kind_and_clip() -> None:
    facts = changes("hola", "¡Hola, Müller! ¡Göring!", "El 50 % de 3", "el Sr. Ruiz, de EE. UU., etc.", "x\u00ad ©y",
                    "El 1º d’Artagnan").facts()
    assert facts["clips"] == 6
    found = {kind: (change["clips"], change["found"]) for kind, change in facts["changes"].items()}
    assert found == {
        "abbreviations_kept": (1, dict.fromkeys(("sr", "ee", "uu", "etc"), 1)),
        "characters_dropped": (1, {"\u00ad": 1, "©": 1}),
        "diacritics_folded": (1, {"ö": 1}),
        "digits_spelled_out": (2, {}),
        "punctuation_dropped": (3, {"¡": 1, "!": 1, ",": 2, ".": 1, "’": 1}),
        "symbols_spelled_out": (1, {"%": 1}),
    }
    assert facts["changes"]["symbols_spelled_out"]["examples"] == [
        {"before": "El 50 % de 3", "after": "el cincuenta por ciento de tres"}]
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_what_stays_as_it_is_counts_for_nothing(code: str) -> None:
    assert changes("UNO dos\u00a0tres " + language(code).letters, code=code).facts()["changes"] == {}
    assert ("punctuation_dropped" in changes("d’or", code=code).facts()["changes"]) != language(code).has_apostrophe


def test_examples_are_few_and_each_shows_something_else() -> None:
    facts = changes("(a)", *["(b)"] * 50, "c!", *(f"{n} d" for n in range(20))).facts()["changes"]
    assert [example["before"] for example in facts["punctuation_dropped"]["examples"]] == ["(a)", "c!"]
    assert facts["punctuation_dropped"]["found"] == {"(": 51, ")": 51, "!": 1}
    assert len(facts["digits_spelled_out"]["examples"]) == MOST_EXAMPLES


def test_merged_facts_are_those_of_all_and_stay_small() -> None:
    raws = [f"{chr(0x2190 + n)} uno, {n}" for n in range(200)]
    parts = [changes(raw).facts() for raw in raws]
    merged, whole = merge_changes(parts), changes(*raws).facts()
    assert merged["clips"] == whole["clips"] == 200
    assert merged["changes"]["punctuation_dropped"] == whole["changes"]["punctuation_dropped"]
    dropped = merged["changes"]["characters_dropped"]
    assert (dropped["clips"], len(dropped["found"]), len(dropped["examples"])) == (200, 50, MOST_EXAMPLES)
    assert len(json.dumps(merged)) < 5000
    assert merge_changes([]) == {"clips": 0, "changes": {}}
