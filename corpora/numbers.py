"""Replace digits and symbols by the words they are read as, if there is only one way to read them."""

import re
import unicodedata
from functools import lru_cache

from num2words import num2words

from corpora.ambiguity import Place, UnclearError
from corpora.languages import Language

_MAX_DIGITS = 12
_MAX_BARE_DIGITS = 4
"""Longer runs without marks between thousands may be telephone or account numbers, unless they are whole thousands."""
_MAX_ORDINAL_DIGITS = 4
_LAST_OF_BARE_SIGN = 10
"""25º may also mean degrees; 25.º cannot."""
_CONTEXT = 80
"""Characters of context examined before and after a number."""

_IRREGULAR_ORDINALS = {("fr", "2", "nd"): "second", ("fr", "2", "nde"): "second", ("fr", "2", "de"): "second",
                       ("es", "1", "er"): "primer", ("es", "3", "er"): "tercer"}

_FAILURES = (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError)
"""What num2words raises if a language has no ordinals, or where it has a gap."""

_INITIALS = re.compile(r"\b([^\W\d_])\.(?=[^\W\d_]\b|°)")
_ELISION = re.compile(r"[^\W\d_]['’]\Z")


def spell_out(text: str, language: Language) -> str:
    """Replace digits and spoken symbols of a lower-case text by words, and join initials (u.s.a. becomes usa).

    Punctuation in the words stays. Digits stay if the language has no num2words or it fails on them, or if they can be
    read in several ways: a telephone number, a time, a range, a number that changes with the gender of a noun.
    """
    if "." in text:
        text = _INITIALS.sub(r"\1", text)
    if not _to_spell_out(language).search(text):
        return text
    if language.num2words:
        text = _number_pattern(language).sub(lambda match: _number_in_words(match, language), text)
    for symbol, words in language.symbols.items():
        text = text.replace(symbol, f" {words} ")
    return text


@lru_cache(maxsize=16)
def _to_spell_out(language: Language) -> re.Pattern[str]:
    one = "".join(re.escape(symbol) for symbol in language.symbols if len(symbol) == 1)
    longer = [re.escape(symbol) for symbol in language.symbols if len(symbol) > 1]
    return re.compile("|".join([rf"[\d{one}]", *longer]))


def _group_marks(language: Language) -> str:
    return language.group_marks or ("." if language.decimal_mark == "," else ",")


@lru_cache(maxsize=16)
def _number_pattern(language: Language) -> re.Pattern[str]:
    group, decimal = re.escape(_group_marks(language)), re.escape(language.decimal_mark)
    number = rf"\d{{1,3}}(?:[{group}]\d{{3}})+(?:{decimal}\d+)?(?!\d)|\d+(?:[.,]\d+)?"
    # "er" and "th" end a word; what follows º or a full stop does not change its meaning.
    marks = "|".join(re.escape(mark) + (r"\b" if mark[-1].isalnum() and mark[-1] not in "ºª" else "")
                     for mark in sorted(language.ordinal_marks.split(), key=len, reverse=True))
    money = "|".join(map(re.escape, language.currencies.split()))
    return re.compile((rf"(?P<currency>(?:{money}) ?)?" if money else "(?P<currency>)") + f"(?P<number>{number})"
                      + (f"(?P<ordinal>{marks})?" if marks else "(?P<ordinal>)"))


def _number_in_words(match: re.Match[str], language: Language) -> str:
    place = Place(match.string[max(0, match.start() - _CONTEXT) : match.start()],
                  match.string[match.end() : match.end() + _CONTEXT], language)
    number, ordinal, currency = match["number"], match["ordinal"] or "", (match["currency"] or "").strip()
    try:
        if currency and place.before[-1:].isalpha():  # us$, hk$
            raise UnclearError
        place.check(number)
        if ordinal == "s" and language.num2words.startswith("en"):
            words = _decade(number, place)
        elif ordinal:
            words = _ordinal_in_words(number, ordinal, place)
        else:
            words = _year(number, place) or _words(number, language)
            place.check_counted(number, words, currency)
    except _FAILURES:
        return match[0]
    is_elided = language.has_apostrophe and _ELISION.search(place.before)
    return f"{'' if is_elided else ' '}{words} {currency} "


def _year(number: str, place: Place) -> str:
    """Only English reads the year 1984 differently from a count."""
    if not place.language.num2words.startswith("en") or not re.fullmatch(r"\d{4}", number) or number.endswith("000"):
        return ""
    if not (1100 <= int(number) < 2000 and place.is_year):
        raise UnclearError
    return str(num2words(int(number), lang=place.language.num2words, to="year"))


def _decade(digits: str, place: Place) -> str:
    place.check_decade(digits)
    words = str(num2words(int(digits), lang=place.language.num2words, to="year"))
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}{'es' if words.endswith('x') else 's'}"


@lru_cache(maxsize=4096)
def _words(number: str, language: Language) -> str:
    """One cardinal number in words.

    Raises:
        UnclearError: there is more than one way.
    """
    groups, decimal = re.escape(_group_marks(language)), re.escape(language.decimal_mark)
    whole, mark, decimals = number.partition(language.decimal_mark)
    if re.fullmatch(rf"[1-9]\d{{0,2}}(?:[{groups}]\d{{3}})+(?:{decimal}\d+)?", number):
        marks = set(re.sub(r"\d", "", whole))
        is_list = marks == {" "} and not whole.endswith(" 000")  # or a telephone number
        if is_list or (len(marks) > 1 and not all(map(str.isspace, marks))):
            raise UnclearError
        whole = re.sub(r"\D", "", whole)
    elif not whole.isdecimal() or (len(whole) > _MAX_BARE_DIGITS and not whole.endswith("000")):
        raise UnclearError
    if len(whole) > _MAX_DIGITS or (len(whole) > 1 and unicodedata.digit(whole[0]) == 0):
        raise UnclearError
    if not mark:
        return _cardinal(int(whole), language)
    if len(decimals) == 3 and re.fullmatch(r"[1-9]\d{0,2}", whole):  # 1,234 where the comma is no group mark
        raise UnclearError
    if not language.num2words.startswith("en") and not re.fullmatch(r"0*\d", decimals):  # fourteen, one four
        raise UnclearError
    fraction = " ".join(_cardinal(int(digit), language) for digit in decimals)
    return f"{_cardinal(int(whole), language)} {language.decimal_words[mark]} {fraction}"


def _ordinal_in_words(digits: str, mark: str, place: Place) -> str:
    """An ordinal in words, if its mark is the ending of the word.

    Raises:
        UnclearError: the mark means something else, or there is more than one way.
    """
    language, ending = place.language, mark.strip(".")
    if not digits.isdecimal() or len(digits) > _MAX_ORDINAL_DIGITS or digits.startswith("0"):
        raise UnclearError
    value, is_sign = int(digits), ending in ("º", "ª")
    if is_sign and language.num2words.startswith("en"):
        raise UnclearError
    if mark == "º" and (value > _LAST_OF_BARE_SIGN or re.match(r"\s?[cfk]\b", place.after)):
        raise UnclearError
    if language.num2words == "es" and value % 100 in (11, 12):  # undécimo, decimoprimero
        raise UnclearError
    words = _IRREGULAR_ORDINALS.get((language.code, digits, ending)) or _ordinal(value, language)
    if mark in language.feminine_marks.split():
        for found, replacement in language.feminine.items():
            words = re.sub(found, replacement, words)
    if not is_sign and not _unaccented(words).endswith(_unaccented(ending)):  # 2th, 5er
        raise UnclearError
    if language.inflected and re.search(language.inflected, words) and len(place.next_word) > 2:
        raise UnclearError  # primero, but primer lugar
    return words


def _unaccented(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))


def _ordinal(number: int, language: Language) -> str:
    """num2words' ordinal, corrected where num2words 0.5.14 is wrong."""
    if language.num2words == "ca" and number % 10 == 0 and number % 100 not in (10, 20):
        # It fails on 30, 40 … and does not change 200 and 2000.
        return re.sub(r"[as]?$", "è", _cardinal(number, language), count=1)
    words = str(num2words(number, lang=language.num2words, to="ordinal"))
    return re.sub(r"(vingt|cent)sième$", r"\1ième", words)


def _cardinal(number: int, language: Language) -> str:
    """num2words' cardinal, with "veintiuno mil" corrected."""
    words = str(num2words(number, lang=language.num2words))
    if language.num2words == "es":
        words = re.sub(r"veintiuno(?= mil)", "veintiún", words)
        words = re.sub(r"\buno(?= mil)", "un", words)
    return words
