"""Digits and symbols -> the words they are read as."""

import re
import unicodedata
from functools import lru_cache

from num2words import num2words

from corpora.languages import Language

_MAX_NUMBER_DIGITS = 12
"""Longer runs of digits are read out digit by digit, as telephone and account numbers are."""

_MOST_ORDINAL_DIGITS = 4

_IRREGULAR_ORDINALS = {("fr", "2", "nd"): "second", ("fr", "2", "nde"): "second", ("fr", "2", "de"): "second",
                       ("es", "1", "er"): "primer", ("es", "3", "er"): "tercer"}

_FAILURES = (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError)
"""What num2words raises where a language has no ordinals, or where it has a gap."""

_INITIALS = re.compile(r"\b([^\W\d_])\.(?=[^\W\d_]\b|°)")
_ELISION = re.compile(r"[^\W\d_]['’]\Z")
_NOUN_OF_MONEY = re.compile(r"[\s-]*(?:mil|bil|tril|thousand|hundred)")
"""Of "$5 million" and "a $5 bill", which are read in another order than they are written."""


def spell_out(text: str, language: Language) -> str:
    """Replace digits and spoken symbols of a lower-case text by words, and join initials (u.s.a. becomes usa).

    Punctuation in the words stays. Digits stay where the language has no num2words, or it fails at them, and where how
    they are read cannot be told.
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
    # Where a mark does not group by three ("28.8" in Spanish text), it is read as a decimal mark too.
    number = rf"\d{{1,3}}(?:[{group}]\d{{3}})+(?:{decimal}\d+)?(?!\d)|\d+(?:[.,]\d+)?"
    # "er" and "th" end a word; whatever follows º or a full stop changes nothing in what they say.
    marks = "|".join(re.escape(mark) + (r"\b" if mark[-1].isalnum() and mark[-1] not in "ºª" else "")
                     for mark in sorted(language.ordinal_marks.split(), key=len, reverse=True))
    money = "|".join(map(re.escape, language.currencies.split()))
    return re.compile((rf"(?P<currency>(?:{money}) ?)?" if money else "(?P<currency>)") + f"(?P<number>{number})"
                      + (f"(?P<ordinal>{marks})?" if marks else "(?P<ordinal>)"))


def _number_in_words(match: re.Match[str], language: Language) -> str:
    if match["currency"] and _NOUN_OF_MONEY.match(match.string, match.end()):
        return match[0]
    try:
        words = _words(match["number"], match["ordinal"] or "", language)
    except _FAILURES:
        return match[0]
    is_elided = language.has_apostrophe and _ELISION.search(match.string, max(0, match.start() - 2), match.start())
    return f"{'' if is_elided else ' '}{words} {match['currency'] or ''} "


@lru_cache(maxsize=4096)
def _words(number: str, ordinal: str, language: Language) -> str:
    """One matched number in words."""
    groups, is_english = _group_marks(language), language.num2words.startswith("en")
    grouped = rf"\d{{1,3}}(?:[{re.escape(groups)}]\d{{3}})+(?:{re.escape(language.decimal_mark)}\d+)?"
    if re.fullmatch(grouped, number):
        number = number.translate(dict.fromkeys(map(ord, groups)))
    elif ordinal == "" and is_english and re.fullmatch(r"1[1-9]\d\d|20[1-9]\d", number):
        return str(num2words(int(number), lang=language.num2words, to="year"))
    whole, mark, decimals = number.partition("," if "," in number else ".")
    if ordinal == "s" and is_english and not decimals:  # the 1980s
        words = _words(number, "", language)
        return f"{words[:-1]}ies" if words.endswith("y") else f"{words}{'es' if words.endswith('x') else 's'}"
    if decimals:
        point = language.decimal_words.get(mark, language.decimal_words[language.decimal_mark])
        as_digits = is_english or len(decimals) > 2 or decimals.startswith("0")
        fraction = _digit_by_digit(decimals, language) if as_digits else _cardinal(decimals, language)
        return f"{_cardinal(whole, language)} {point} {fraction}"
    if ordinal and len(whole) <= _MOST_ORDINAL_DIGITS and int(whole) > 0:
        words = _IRREGULAR_ORDINALS.get((language.code, whole, ordinal.lstrip("."))) or _ordinal(int(whole), language)
        if ordinal in language.feminine_marks.split():
            for ending, replacement in language.feminine.items():
                words = re.sub(ending, replacement, words)
        return words
    return _cardinal(whole, language)


def _ordinal(number: int, language: Language) -> str:
    """As num2words has it, but for what num2words 0.5.14 gets wrong."""
    if language.num2words == "ca" and number % 10 == 0 and number % 100 not in (10, 20):
        # It fails at 30, 40 … and leaves 200 and 2000 as they are.
        return re.sub(r"[as]?$", "è", _cardinal(str(number), language), count=1)
    words = str(num2words(number, lang=language.num2words, to="ordinal"))
    return re.sub(r"(vingt|cent)sième$", r"\1ième", words)


def _cardinal(digits: str, language: Language) -> str:
    has_leading_zero = len(digits) > 1 and unicodedata.digit(digits[0], -1) == 0
    if len(digits) > _MAX_NUMBER_DIGITS or has_leading_zero:
        return _digit_by_digit(digits, language)
    return str(num2words(int(digits), lang=language.num2words))


def _digit_by_digit(digits: str, language: Language) -> str:
    return " ".join(str(num2words(int(digit), lang=language.num2words)) for digit in digits)
