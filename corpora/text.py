"""A language's alphabet, and the one frozen way that transcripts are normalised."""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from num2words import num2words

NORMALISER_VERSION = "1"
"""Part of every cache key: raise it whenever `normalise` gives another text for any input."""

_APOSTROPHES = "'’‘ʼ`´′"
_SPELLED_OUT = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th", "ı": "i", "ŋ": "n"}
"""Latin letters that Unicode does not decompose into a base letter and a mark."""

_SPOKEN_SYMBOLS = {
    "es": {
        "%": "por ciento",
        "&": "y",
        "€": "euros",
        "$": "dólares",
        "£": "libras",
        "+": "más",
        "@": "arroba",
        "°": "grados",
    },
    "it": {
        "%": "per cento",
        "&": "e",
        "€": "euro",
        "$": "dollari",
        "£": "sterline",
        "+": "più",
        "@": "chiocciola",
        "°": "gradi",
    },
    "en": {
        "%": "percent",
        "&": "and",
        "€": "euros",
        "$": "dollars",
        "£": "pounds",
        "+": "plus",
        "@": "at",
        "°": "degrees",
    },
}

_DECIMAL_MARKS = {
    "es": {",": "coma", ".": "punto"}, "it": {",": "virgola", ".": "punto"}, "en": {",": "point", ".": "point"}}

_MAX_NUMBER_DIGITS = 12
"""Longer runs of digits are read out digit by digit, as telephone and account numbers are."""


@dataclass(frozen=True, kw_only=True)
class Language:
    """A language's code and the characters of its normalised transcripts."""

    code: str
    """ISO 639-1, as Common Voice and num2words use it."""
    letters: str
    """Lower-case letters in label order, without space and apostrophe."""
    has_apostrophe: bool = False
    """Whether the apostrophe is written inside words, and so is a label."""
    decimal_mark: str = "."
    """`.` or `,`; the other one groups thousands."""

    @property
    def alphabet(self) -> str:
        """Space, letters, apostrophe: the order of NeMo's English labels."""
        return " " + self.letters + ("'" if self.has_apostrophe else "")


_LATIN = "abcdefghijklmnopqrstuvwxyz"
LANGUAGES = {
    "es": Language(code="es", letters=_LATIN + "áéíñóúü", decimal_mark=","),
    "it": Language(code="it", letters=_LATIN + "àèéìòù", has_apostrophe=True, decimal_mark=","),
    "en": Language(code="en", letters=_LATIN, has_apostrophe=True),
}


def language(code: str) -> Language:
    """Look a language up by its code.

    Raises:
        ValueError: no such language; the message names the known ones.
    """
    if code not in LANGUAGES:
        known = ", ".join(sorted(LANGUAGES))
        raise ValueError(
            f"language is {code!r}; it must be one of {known}. Choose one, or add its Language to LANGUAGES."
        )
    return LANGUAGES[code]


def normalise(text: str, language: Language) -> str:
    """Turn a raw transcript into the frozen reference: words of the language's letters, single spaces.

    Lower case, Unicode NFC, digits and a few symbols spelled out, foreign diacritics folded to their base letter,
    punctuation dropped. Empty where no character of the alphabet is left. Letters of other scripts are dropped too:
    ask `foreign_letters` for them.
    """
    text = unicodedata.normalize("NFC", text).lower()
    text = _spell_out(text, language)
    text = " ".join(text.translate(_table(language)).split())
    return _drop_quotation_marks(text) if "'" in text else text


def foreign_letters(text: str, language: Language) -> str:
    """Return the letters that `normalise` cannot express in the language and so drops, each once, in order."""
    table = _table(language)
    lowered = unicodedata.normalize("NFC", text).lower()
    dropped = (char for char in lowered if char.isalpha() and not table[ord(char)].strip())
    # Modifier letters are marks, not speech: "ː" stands for a colon in real transcripts.
    return "".join(dict.fromkeys(char for char in dropped if unicodedata.category(char) != "Lm"))


def fold_accents(text: str) -> str:
    """Fold every letter to its base letter: á to a, ñ to n, ü to u."""
    return text if text.isascii() else text.translate(_FOLDING)


class _Folding(dict[int, str]):
    """Character to base letter, filled as characters are met."""

    def __missing__(self, codepoint: int) -> str:
        char = chr(codepoint)
        self[codepoint] = _base_letters(char) or ("" if unicodedata.category(char) == "Mn" else char)
        return self[codepoint]


_FOLDING = _Folding()


class _NormalisingTable(dict[int, str]):
    """Character to what stands for it in a normalised transcript, filled as characters are met."""

    def __init__(self, language: Language) -> None:
        super().__init__({ord(char): char for char in language.alphabet})
        self._language = language
        for char in _APOSTROPHES:
            self[ord(char)] = "'" if language.has_apostrophe else ""

    def __missing__(self, codepoint: int) -> str:
        self[codepoint] = self._stand_in(chr(codepoint))
        return self[codepoint]

    def _stand_in(self, char: str) -> str:
        # Marks, and what is invisible (soft hyphen, zero-width joiner), vanish without parting a word.
        if unicodedata.category(char) in ("Mn", "Cf"):
            return ""
        if not char.isalpha():
            return " "
        return "".join(base for base in _base_letters(char) if base in self._language.letters) or " "


@lru_cache(maxsize=16)
def _table(language: Language) -> _NormalisingTable:
    return _NormalisingTable(language)


def _base_letters(char: str) -> str:
    """The letters under a letter's diacritics, or "" where the character is no letter."""
    if not char.isalpha():
        return ""
    decomposed = unicodedata.normalize("NFKD", _SPELLED_OUT.get(char, char))
    return "".join(part for part in decomposed if not unicodedata.combining(part))


_TO_SPELL_OUT = re.compile(r"[\d%&€$£+@°]")
_INITIALS = re.compile(r"\b([^\W\d_])\.(?=[^\W\d_]\b)")
_QUOTED = re.compile(r"(?<![^ ])'((?:[^']|(?<=[^ '])'(?=[^ ']))*)'(?![^ ])")
_LONE_APOSTROPHES = re.compile(r"(?<![^ '])'+(?![^ '])")


def _drop_quotation_marks(text: str) -> str:
    """Keep the apostrophes of "don't" and "'tis", drop those that stand around a quotation."""
    if text.count("'") > 1:
        text = _QUOTED.sub(r"\1", text)
    return " ".join(_LONE_APOSTROPHES.sub(" ", text).split())


def _spell_out(text: str, language: Language) -> str:
    """Replace digits and spoken symbols by words, and join initials (U.S.A. becomes USA)."""
    if "." in text:
        text = _INITIALS.sub(r"\1", text)
    if not _TO_SPELL_OUT.search(text):
        return text
    text = _number_pattern(language).sub(lambda match: _number_in_words(match, language), text)
    for symbol, words in _SPOKEN_SYMBOLS[language.code].items():
        text = text.replace(symbol, f" {words} ")
    return text


@lru_cache(maxsize=16)
def _number_pattern(language: Language) -> re.Pattern[str]:
    decimal, group = (",", r"\.") if language.decimal_mark == "," else (r"\.", ",")
    # Where the other mark does not group by three ("28.8" in Spanish text), it is read as a decimal mark too.
    number = rf"\d{{1,3}}(?:{group}\d{{3}})+(?:{decimal}\d+)?(?!\d)|\d+(?:[{decimal}{group}]\d+)?"
    return re.compile(rf"(?P<currency>[$€£] ?)?(?P<number>{number})(?P<ordinal>\.?[ºª]|st\b|nd\b|rd\b|th\b)?")


def _number_in_words(match: re.Match[str], language: Language) -> str:
    words = _words(match["number"], match["ordinal"] or "", language)
    return f" {words} {match['currency'] or ''} "


@lru_cache(maxsize=4096)
def _words(number: str, ordinal: str, language: Language) -> str:
    """One matched number in words; punctuation in them is dropped later."""
    group = "." if language.decimal_mark == "," else ","
    if re.fullmatch(rf"\d{{1,3}}(?:{re.escape(group)}\d{{3}})+(?:{re.escape(language.decimal_mark)}\d+)?", number):
        number = number.replace(group, "")
    elif ordinal == "" and language.code == "en" and re.fullmatch(r"1[1-9]\d\d|20[1-9]\d", number):
        return str(num2words(int(number), lang="en", to="year"))
    whole, mark, decimals = number.partition("," if "," in number else ".")
    if decimals:
        point = _DECIMAL_MARKS[language.code][mark]
        as_digits = language.code == "en" or len(decimals) > 2 or decimals.startswith("0")
        fraction = _digit_by_digit(decimals, language) if as_digits else _cardinal(decimals, language)
        return f"{_cardinal(whole, language)} {point} {fraction}"
    if ordinal and len(whole) <= 4 and int(whole) > 0:
        words = str(num2words(int(whole), lang=language.code, to="ordinal"))
        return re.sub(r"o\b", "a", words) if ordinal.endswith("ª") else words
    return _cardinal(whole, language)


def _cardinal(digits: str, language: Language) -> str:
    has_leading_zero = len(digits) > 1 and unicodedata.digit(digits[0], -1) == 0
    if len(digits) > _MAX_NUMBER_DIGITS or has_leading_zero:
        return _digit_by_digit(digits, language)
    return str(num2words(int(digits), lang=language.code))


def _digit_by_digit(digits: str, language: Language) -> str:
    return " ".join(str(num2words(int(digit), lang=language.code)) for digit in digits)
