"""Digits and symbols read out: every language, every form that it uses, and every number in it."""

import random
from collections import Counter

import pytest

from corpora.languages import LANGUAGES, Language, language
from corpora.numbers import spell_out
from corpora.text import foreign_letters, normalise, why_unusable

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_every_number_is_read_out_in_the_languages_letters(code: str) -> None:
    spoken, large = language(code), random.Random(0).sample(range(3000, 10**12), 100)
    mark = "," if spoken.decimal_mark == "." else "."
    for number in (*range(1, 300), *range(300, 10_000, 37), 1000, 2000, 9000, *large):
        read = spell_out(f"{number:,}".replace(",", mark), spoken)
        if code == "pt" and "14" in f"{number:,}":  # catorze, quatorze
            continue
        assert not any(char.isdigit() for char in read) and foreign_letters(read, spoken) == "", number
        assert not set(normalise(read, spoken)) - set(spoken.alphabet)


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_ordinal_is_read_out_or_left_whole(code: str) -> None:
    spoken, num_read = language(code), Counter[str]()
    for mark in spoken.ordinal_marks.split():
        for number in (*range(1, 300), *range(300, 10_000, 37)):
            read = spell_out(f"{number}{mark}", spoken)
            if str(number) in read:  # a mark that is not the end of the word, or may mean something else
                continue
            num_read[mark] += 1
            assert not any(char.isdigit() for char in read) and foreign_letters(read, spoken) == "", (number, mark)
    assert max(num_read.values()) > 300


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
    ("en", "the 1980s, the 90s and 1900s", "the nineteen eighties the nineties and nineteen hundreds"),
    ("fr", "1.234,5 et 3,5", "mille deux cent trente quatre virgule cinq et trois virgule cinq"),
    ("es", "son 21.000.", "son veintiún mil"),
    ("es", "31.000.000 de euros", "treinta y un millones de euros"),
    ("es", "1.000.000 de mujeres", "un millón de mujeres"),
    ("es", "1.000 mujeres, 100.000 personas, 25 casas", "mil mujeres cien mil personas veinticinco casas"),
    ("es", "200 €, página 21, marque 1 para salir", "doscientos euros página veintiuno marque uno para salir"),
    ("es", "en 1921 nació, el 21 de mayo de 1990", "en mil novecientos veintiuno nació el veintiuno de mayo de mil "
     "novecientos noventa"),
    ("es", "1, 2 o 500", "uno dos o quinientos"),
    ("pt", "2 %, 2 de maio e 1.000.000 de pessoas", "dois por cento dois de maio e um milhão de pessoas"),
    ("fr", "200 personnes, le 21 mai", "deux cents personnes le vingt et un mai"),
    ("ca", "2 de maig, 1.000.000 de dones", "dos de maig un milió de dones"),
    ("it", "21.000 donne nel 1921", "ventunomila donne nel millenovecentoventuno"),
    ("en", "5 + 3, a 19-year-old, covid-19", "five plus three a nineteen year old covid nineteen"),
    ("en", "July 4th, in May 1984", "july fourth in may nineteen eighty four"),
])
def test_numbers_that_num2words_alone_gets_wrong(code: str, raw: str, read: str) -> None:
    assert normalise(raw, language(code)) == read


@pytest.mark.parametrize(("code", "raw"), [
    ("es", "MI CASA ES TU CASA"), ("es", "DVD y CD de talla XL"), ("it", "I ragazzi"), ("ca", "Romeu I Julieta"),
    ("en", "Then I and NBC MIX"), ("fr", "il a DIX ans"), ("es", "marque 1 y tengo 112 libros rojos"),
])
def test_capitals_that_are_no_numeral_stay(code: str, raw: str) -> None:
    assert why_unusable(raw, normalise(raw, language(code)), language(code)) is None


def test_language_without_num2words_keeps_digits_and_reads_its_symbols() -> None:
    spoken = Language(code="gl", letters="abcdefghijklmnñopqrstuvwxyz", symbols={"%": "por cento"})
    assert spell_out("5 %", spoken) == "5  por cento "
    assert spell_out("a.b. %", Language(code="gl", letters="ab")) == "ab. %"


@pytest.mark.parametrize(("code", "raws"), [
    ("en", ("$5 million", "a $5 bill", "a €20 ticket", "$1", "$3.50", "¥5", "5¢", "USD 20")),
    ("es", ("$5 millones", "$20", "US$ 20", "1 €", "3,50 €", "1.000.000 €", "200 £", "20 EUR", "100 %", "1 %")),
    ("pt", ("R$ 5 milhões", "R$ 3,50", "R$ 1")), ("fr", ("1 000 000 €", "d'1 €", "2,50 €")),
    ("es", ("1½ kilos", "1/2", "3/4 partes", "1⁄2")), ("it", ("H₂O", "5 ‰")), ("ca", ("el segle Ⅷ", "3,14")),
    ("es", ("-5", "−5 grados", "hace - 5", "±5", "+5", "18+", "(-3)", "2 x 3", "2×3", "< 5", "#5", "10 - 15", "10–15")),
    ("es", ("12/05/2020", "12.05.2020", "2020-05-12", "1 de mayo", "1/5", "24/7", "192.168.1.1", "versión 2.0")),
    ("fr", ("le 1 mai", "12/05")), ("it", ("1 maggio",)), ("ca", ("1 de maig",)), ("pt", ("1 de maio",)),
    ("en", ("May 5", "5 May", "May 5, 1984", "the 5 of May")),
    ("es", ("10:30", "a las 10.30", "a la 1", "a las 21", "5 a.m.", "10 h", "10h30")), ("it", ("alle 10.30", "all'1")),
    ("fr", ("10h", "à 10 h 30")), ("pt", ("16h", "às 2", "às 10h30")), ("en", ("10:30", "5 pm", "5pm")),
    ("es", ("1º piso", "el 3.º lugar", "25º", "25º C", "25 °C", "25°", "11º", "5th", "5er", "2no")),
    ("it", ("2° posto", "5th")), ("fr", ("1e", "2er", "3re")), ("ca", ("2t", "5r")),
    ("es", ("25 ª", "5 º", "%5")), ("en", ("No. 1", "no.1")),
    ("en", ("11st", "2th", "5º", "6s", "90s", "2010s", "25 °C")),
    ("es", ("200 personas", "21 personas", "tengo 21 años", "31.000 mujeres", "1 persona", "101 dálmatas", "las 200",
            "unas 200 o 300 personas", "201, 202 casas", "«200» personas", "1.000.000 personas", "en 1500 casas")),
    ("pt", ("2 pães", "21 mulheres", "200 pessoas", "2.000 mulheres", "31.000 mulheres", "as 2")),
    ("ca", ("2 dones", "22 anys", "200 dones", "21 dones", "les 2", "la 1")),
    ("fr", ("1 femme", "21 ans", "31.000 femmes", "les 21", "1.000.000 personnes")),
    ("it", ("21 persone", "1 persona", "101 cani", "l'1", "1.000.000 persone")),
    ("es", ("912345678", "600 123 456", "91 234 56 78", "28001", "007", "1,234", "28.8", "3,14", "5'", 'mide 5"')),
    ("en", ("1.234", "007", "12345", "1500 people", "1984", "in 2010", "5'6", "2k")),
    ("es", ("5 km", "5 kg", "mide 5 m²", "4x4", "3D", "3 m2", "km2", "km 21", "n. 5", "2 do", "A$5")),
    ("en", ("4 th", "at 10.30", "No 1", "call 911 now", "flight 370 landed", "room 101", "it weighs 150.", "°5",
            "World War II", "Henry V was", "HK$5")),
    ("es", ("siglo XX", "Felipe II reinó", "Carlos V llegó", "Alfonso XIII", "llama al 112")),
    ("it", ("n. 5", "XX secolo", "Papa Giovanni Paolo II", "Carlo I.", "chiama il 118")),
    ("fr", ("no 5", "en 1984", "2 ème", "le XIXe siècle", "François Ier", "Louis XIV", "appelez le 112")),
    ("pt", ("US$ 5", "3ª feira", "3.ª-feira", "14 anos", "século V", "D. João VI")),
    ("ca", ("segle XX", "Jaume I.", "n. 2")),
])
def test_number_whose_reading_cannot_be_told_leaves_its_clip_out(code: str, raws: tuple[str, ...]) -> None:
    spoken = language(code)
    for raw in raws:
        reason, said = why_unusable(raw, normalise(raw, spoken), spoken) or ("", "")
        assert reason == "digits" and repr(raw) in said, raw
