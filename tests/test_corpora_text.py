"""The frozen reference: what becomes of a transcript, character by character, and what is told of it."""

import json
import unicodedata
from typing import Literal

import pytest

from corpora.languages import LANGUAGES, Language, language
from corpora.text import (
    MAX_EXAMPLES,
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
            ("Saat 5", TURKISH, "digits", "'Saat 5' holds digits that 'tr', with no num2words, cannot read out"),
            ("je 5. máj", SLOVAK, "digits", "'je 5. máj' holds digits that 'sk', with num2words 'sk', cannot read")):
        found, said = why_unusable(raw, normalise(raw, spoken), spoken) or ("", "")
        assert found == reason and said.startswith(detail)
    for raw, spoken in (("Marque 5", SPANISH), ("je 5 máj", SLOVAK)):
        assert why_unusable(raw, normalise(raw, spoken), spoken) is None


def test_letters_of_a_language_are_kept_whatever_they_fold_to_elsewhere() -> None:
    assert normalise("ISPARTA'nın IŞIĞI, İyi wx", TURKISH) == "ıspartanın ışığı iyi wx".replace(" wx", "")


# --- one word stays one word -----------------------------------------------------------------------------------------

SCRIPTS = {spoken.code: spoken for spoken in (
    TURKISH,
    Language(code="ar", letters="ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىي"),
    Language(code="fa", letters="ءآئابتثجحخدذرزسشصضطظعغفقلمنهوپچژکگی"),
    Language(code="fa-zwnj", letters="ءآئابتثجحخدذرزسشصضطظعغفقلمنهوپچژکگی\u200c"),
    Language(code="hi", letters="अआइईउऊएऐओऔकखगघचछजझटठडढणतथदधनपफबभमयरलवशषसहािीुूृेैोौ्ंँः\u093c"),
    Language(code="haw", letters="aeiouhklmnpwāēīōūʻ"),
    Language(code="haw-apostrophe", letters="aeiouhklmnpwāēīōū", has_apostrophe=True),
    Language(code="haw-none", letters="aeiouhklmnpwāēīōū"),
    Language(code="uz", letters="abdefghijklmnopqrstuvxyzʻʼ"),
    Language(code="vi", letters="aăâbcdđeêghiklmnoôơpqrstuưvxy"
             "àáảãạằắẳẵặầấẩẫậèéẻẽẹềếểễệìíỉĩịòóỏõọồốổỗộờớởỡợùúủũụừứửữựỳýỷỹỵ"),
    Language(code="vi-toneless", letters="aăâbcdđeêghiklmnoôơpqrstuưvxy"),
    Language(code="oc", letters="abcdefghijklmnopqrstuvwxyzàáèéíòóúçïü·"),
    Language(code="hy", letters="աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆև"),
    Language(code="he", letters="אבגדהוזחטיכךלמםנןסעפףצץקרשת"),
    Language(code="el", letters="αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ"),
    Language(code="yo", letters="abdeẹfghijklmnoọprsṣtuwyàáèéìíòóùú\u0301\u0300"),
)} | LANGUAGES


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(("code", "raws", "reference"), [
    ("tr", ("İSTANBUL'da IŞIK, İyi", "istanbulda ışık iyi", "i\u0307stanbulda ışık iyi"), "istanbulda ışık iyi"),
    ("tr", ("Hâlâ",), "hala"),
    ("ar", ("محمـــد", "مُحَمَّد", "محمد", "مح\u200cمد", "ﻣﺤﻤﺪ"), "محمد"),
    ("fa", ("می\u200cخواهم علی کتاب", "ميخواهم علي كتاب"), "میخواهم علی کتاب"),
    ("fa-zwnj", ("\u200cمی\u200cخواهم \u200c تو\u200c",), "می\u200cخواهم تو"),
    ("hi", ("क्या ज़रूर हिन्दी।", "क्\u200dया ज\u093cरूर हिन्\u200cदी"), "क्या ज\u093cरूर हिन्दी"),
    ("haw", ("Hawaiʻi ʻŌlelo", "Hawai’i ’Ōlelo", "Hawai‘i ‘Ōlelo", "Hawai'i 'Ōlelo", "Hawai`i `Ōlelo",
             "‘Hawaiʻi’ ʻ ʻŌlelo"),
     "hawaiʻi ʻōlelo"),
    ("haw-apostrophe", ("Hawaiʻi", "Hawai‘i", "Hawaiʼi"), "hawai'i"),
    ("haw-none", ("Hawaiʻi", "Hawai‘i", "Hawai'i"), "hawaii"),
    ("uz", ("Oʻzbek maʼno", "O‘zbek ma’no"), "oʻzbek maʼno"),
    ("vi", ("Tiếng Việt ƯỚC",), "tiếng việt ước"), ("vi-toneless", ("Tiếng Việt",), "tiêng viêt"),
    ("oc", ("des·har", "des•har"), "des·har"),
    ("ca", ("col·legi", "COL•LEGI", "col‧legi", "col∙legi", "col⋅legi", "coŀlegi", "COĿLEGI", "col.legi", "col・legi"),
     "col·legi"),
    ("es", ("Paral·lel", "Paral•lel"), "parallel"),
    ("hy", ("Ի՞նչ, բարև՛",), "ինչ բարև"),
    ("he", ("צה״ל", 'צה"ל', "צהל"), "צהל"), ("he", ("שָׁלוֹם",), "שלום"),
    ("el", ("ΟΔΟΣ οδός",), "οδος οδός"), ("yo", ("Ẹ́ Ẹ̀kọ́",), "ẹ́ ẹ̀kọ́"),
    ("es", ("niño(s)", "niño[s]", "ni\u00adño\u200bs", "ni\x00ños", "<b>n</b>iños"), "niños"),
    ("es", ("Hawaiʻi", "Hawai’i"), "hawaii"), ("en", ("don\x92t", "donʼt", "don＇t"), "don't"),
])
def test_one_word_stays_one_word(form: Literal["NFC", "NFD"], code: str, raws: tuple[str, ...], reference: str) -> None:
    spoken = SCRIPTS[code]
    for raw in raws:
        text = normalise(unicodedata.normalize(form, raw), spoken)
        assert text == unicodedata.normalize("NFC", reference), raw
        assert normalise(text, spoken) == text
        assert why_unusable(raw, text, spoken) is None


def test_what_was_dropped_and_folded_is_counted() -> None:
    for code, raw, kind, found in (
            ("ar", "محمـــد مُحَمد", "marks_dropped", {"ـ": 3, "◌ُ": 1, "◌َ": 1}),
            ("haw-none", "Hawaiʻi ʻo", "marks_dropped", {"ʻ": 2}),
            ("haw", "Hawai‘i Hawai'i", "variants_made_one", {"‘→ʻ": 1, "'→ʻ": 1}),
            ("vi-toneless", "Tiếng Việt", "letters_folded", {"ế→ê": 1, "ệ→ê": 1}),
            ("es", "São João", "letters_folded", {"ã→a": 2}), ("es", "Sa\u0303o", "letters_folded", {"ã→a": 1}),
            ("fa", "علي", "letters_folded", {"ي→ی": 1})):
        seen = TextChanges(SCRIPTS[code])
        seen.observe(raw, normalise(raw, SCRIPTS[code]))
        assert seen.facts()["changes"][kind]["found"] == found, raw


def test_sign_that_is_spoken_is_a_letter() -> None:
    """A vowel sign that the alphabet forgot, or a letter that was lost, is no accent to be dropped."""
    consonants = Language(code="hi", letters="कयनदहर")
    assert foreign_letters("हिन्दी", consonants) == "ि्ी"
    assert foreign_letters("Espa\ufffda", SPANISH) == "\ufffd" and fold_accents("हिन्दी") == "हिन्दी"


@pytest.mark.parametrize(("raw", "reference", "found"), [
    ("<i>ca</i>sa<br/>blanca", "casa blanca", {"<i>": 1, "</i>": 1, "<br/>": 1}),
    ("Ana &amp; &eacute;l &amp;quot;s&iacute;&#33;&amp;quot;", "ana y él sí",
     {"&amp;": 3, "&quot;": 2, "&eacute;": 1, "&iacute;": 1, "&#33;": 1}),
    ("hola <unk> [noise]mundo[RISAS] {laugh}", "hola mundo", {"<unk>": 1, "[noise]": 1, "[risas]": 1, "{laugh}": 1}),
    ("&lt;s&gt; Roma[1] [background noise] <|end|></s>", "roma",
     {"&lt;": 1, "&gt;": 1, "<s>": 1, "[1]": 1, "[background noise]": 1, "<|end|>": 1, "</s>": 1}),
    ("AT&T <<hola>> [dijo el presidente de la sala] [[Roma|la ciudad]]",
     "at y t hola dijo el presidente de la sala la ciudad", {}),
])
def test_markup_is_no_word(raw: str, reference: str, found: dict[str, int]) -> None:
    assert normalise(raw, SPANISH) == reference and why_unusable(raw, reference, SPANISH) is None
    assert changes(raw).facts()["changes"].get("markup_removed", {"found": {}})["found"] == found


# --- what was changed ------------------------------------------------------------------------------------------------


def changes(*raws: str, code: str = "es") -> TextChanges:
    seen, spoken = TextChanges(language(code)), language(code)
    for raw in raws:
        seen.observe(raw, normalise(raw, spoken))
    return seen


def test_changes_are_counted_by_kind_and_clip() -> None:
    facts = changes("hola", "¡Hola, Müller! ¡Göring Zoëë!", "El 50 % de 3", "el Sr. Ruiz, de EE. UU., etc.",
                    "x\u00ad ©<i>y</i>", "El 1º d’Artagnan").facts()
    assert facts["clips"] == 6
    found = {kind: (change["clips"], change["found"]) for kind, change in facts["changes"].items()}
    assert found == {
        "abbreviations_kept": (1, dict.fromkeys(("sr", "ee", "uu", "etc"), 1)),
        "characters_dropped": (1, {"\u00ad": 1, "©": 1}),
        "letters_folded": (1, {"ö→o": 1, "ë→e": 2}),
        "digits_spelled_out": (2, {}),
        "markup_removed": (1, {"<i>": 1, "</i>": 1}),
        "punctuation_dropped": (3, {"¡": 2, "!": 2, ",": 3, ".": 4, "’": 1}),
        "symbols_spelled_out": (1, {"%": 1}),
    }
    assert facts["changes"]["symbols_spelled_out"]["examples"] == [
        {"before": "El 50 % de 3", "after": "el cincuenta por ciento de tres"}]
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_what_stays_as_it_is_counts_for_nothing(code: str) -> None:
    assert changes("UNO dos\u00a0tres " + language(code).letters, code=code).facts()["changes"] == {}
    kind, name = (("variants_made_one", "’→'") if language(code).has_apostrophe else ("punctuation_dropped", "’"))
    assert changes("d’or", code=code).facts()["changes"][kind]["found"] == {name: 1}


def test_examples_are_few_and_each_shows_something_else() -> None:
    facts = changes("(a)", *["(b)"] * 50, "c!", *(f"{n} d" for n in range(20))).facts()["changes"]
    assert [example["before"] for example in facts["punctuation_dropped"]["examples"]] == ["(a)", "c!"]
    assert facts["punctuation_dropped"]["found"] == {"(": 51, ")": 51, "!": 1}
    assert len(facts["digits_spelled_out"]["examples"]) == MAX_EXAMPLES


def test_merged_facts_are_those_of_all_and_stay_small() -> None:
    raws = [f"{chr(0x2190 + n)} uno, {n}" for n in range(200)]
    parts = [changes(raw).facts() for raw in raws]
    merged, whole = merge_changes(parts), changes(*raws).facts()
    assert merged["clips"] == whole["clips"] == 200
    assert merged["changes"]["punctuation_dropped"] == whole["changes"]["punctuation_dropped"]
    dropped = merged["changes"]["characters_dropped"]
    assert (dropped["clips"], len(dropped["found"]), len(dropped["examples"])) == (200, 50, MAX_EXAMPLES)
    assert len(json.dumps(merged)) < 5000
    assert merge_changes([]) == {"clips": 0, "changes": {}}
