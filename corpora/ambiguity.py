"""Decide by its context whether a number in a transcript can be read in only one way."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from corpora.languages import Language

_DASH = "-‐‑‒–−"
_MONEY = "[%€$£]?"
_BETWEEN = rf"[{_DASH}x×*÷=/^~⁄]"
"""Between two numbers, these make a range, a product, a date or a fraction."""

_CODES = "usd|eur|gbp|chf|mxn|ars|cop|clp|brl|cad|jpy|cny"

_UNCLEAR_BEFORE = re.compile("|".join([
    rf"\d\s?{_MONEY}\s*{_BETWEEN}\s*\Z", r"\d[—.,:'’]\Z",  # times and versions too
    rf"(?<![^\W_])[{_DASH}±]\s?\Z", r"−\s?\Z", r"(?<!\d)(?<!\d )\+\s?\Z",  # signs
    r"(?<![\w.,])[.,]\Z", rf"\b(?:{_CODES})\s?\Z", r"\bno?\.\s?\Z", r"[#§@%/\\^_~<>=|*†]\s?\Z",
    r"(?<!\bn)°\s?\Z", r"\b(?:km|kg)\.?\s?\Z"]))
_UNCLEAR_AFTER = re.compile("|".join([
    rf"\s?{_MONEY}\s*{_BETWEEN}\s*{_MONEY}\s?\d", r"[—.,:'’]\d", r"\s?[#§@/\\^_~<>=|*‰‱٪′″]", r"\s?\+(?!\s?\d)",
    r"\s[ºª]", r"[^\W\d]", r"['’][^\W\d_]",
    # The text would hold the unit's sign, not the spoken word.
    rf"\s(?:{_CODES}|"
    r"[kcdmµ]?m|[kmµ]?g|kgs|[cdmh]?l|t|lbs?|oz|ft|h|hs|hrs?|min|segs?|secs?|s|[ap]m|[kmgt]b|[kmg]?hz|[km]?wh?|v|ha|kmh|"
    r"kph|mph|[cf])\b(?!['’])"]))
_UNCLEAR_SIGNS = "№℃℉"
_POWER = re.compile(r"\b(?:[kcdmµ]?m|ft|in)\Z")
"""A unit of length: m2 is square metres."""
_DIALLED = re.compile(r"\b(?:call|dial|ring|phone|text|llam|marca|marque|chiam|telefon|telephon|téléphon|appel|compos|"
                      r"lig|liga|disc|disque|truc|marc|marqu|tel|tlf|tél)[a-zàáâèéêíòóú]{0,4}\.?(?:\s[a-zà]{1,4})?"
                      r"(?:\sn[úu]m[eé]ro?)?\s\Z")
"""911 is nine one one then, and 112 may be."""
_CLOCK = re.compile(r"\b(?:at|by|until|till|from|to|since|before|after|around|about|between|and)\s\Z")
_APART = {"en": "st nd rd th", "fr": "er re ère eme ème ième nd nde", "es": "er ro do ra da"}
"""Endings of ordinals that are no words, and so belong to a number before a space."""
_NEAR_DIGITS = re.compile("\\d[ \u00a0\u202f]\\Z"), re.compile("[ \u00a0\u202f]\\d")
_DECADE = re.compile(r"(?:\b(?:the|early|mid|late|his|her|its|their|our|my|your)[ -]|['’])\Z")
_NAMED = re.compile(r"(?:[^\W\d_]-?|n[º°]\s?)\Z")
_LIST = re.compile(r"(?:\s*(?:[,;]|[\s,]\s*(?:y|e|o|u|i|a|ni|ou|et|ed|od))\s*\d[\d.]*)+")
_NEXT_WORD = re.compile(r"[\"'»”’)\]]*[\s-]+[\"'«“‘(\[]*([^\W\d_]+)")
_LAST_WORD = re.compile(r"([^\W\d_]+)[\s-]+\Z")


def _words(parted_by_spaces: str) -> frozenset[str]:
    return frozenset(parted_by_spaces.split())


_AFTER_MONEY = _words("y e i o u et ou ed od and or a à en em in de da di per por par pour to for on at is was than")
"""After "$5" these words start something new; a noun would belong to the money (a $5 bill, $5 million)."""
_AFTER_YEAR = _words("the a an and or to at by in on he she it we they i his her their was were is when after before "
                    "until for but as with there")
"""English words that are not counted."""
_NUMBERED = _words("room rooms flight route bus highway interstate boeing area page channel number suite gate "
                   "apartment psalm unit bed line train platform")
"""English names that a number of three digits ends: room one oh one, flight three seventy."""
_OF = _words("de del d di des du do dos da das dels")
"""Between a million and the counted noun in Romance languages."""
_ROMANCE = ("es", "pt", "ca", "fr", "it")
_MASCULINE_SIGNS = ("%", "€", "$", "r$")


_ROMAN = re.compile(r"(?<![^\W_])((?=[IVXLCDM]{2})M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3}))"
                    r"(?:er|e|è|ème|eme|ième|ᵉ|º|ª|s|n|t|th|nd|rd|st)?(?![^\W_])")
_ROMAN_OF_ONE = re.compile(
    r"\b(?:[A-ZÀ-Ý][^\W\d_]{2,} (?:[VX]|I(?=[.,;:!?»”]*$)|I(?:er|re|ère|º|ª))|"
    r"(?i:siglo|secolo|século|segle|siècle|capítulo|capitolo|capítol|chapitre|chapter|tomo|tome|volume|parte?|part[ei]e?|"
    r"act[eo]?) [IVX])(?:er|re|ère|e|ème|º|ª)?(?![^\W_])")


def roman_numeral(text: str, language: Language) -> str:
    """The first Roman numeral of a text in its own case: spoken as a number, written as letters; "" where none is.

    CD and MM are rarely numerals, and in a text all in capitals none can be recognised.
    """
    if text == text.upper() and len(text.split()) > 1:
        return ""
    for match in _ROMAN.finditer(text):
        least = 4 if set(match[1]) & set("CDM") else 3 if "L" in match[1] else 2
        if len(match[1]) >= least and match[1] != "XXL":
            return match[0]
    found = _ROMAN_OF_ONE.search(text)
    return found[0].split()[-1] if found and not (language.code == "en" and found[0].endswith(" I")) else ""


class UnclearError(ValueError):
    """A number that can be read in more than one way, or whose reading is not known."""


@dataclass(frozen=True)
class Place:
    """The text before and after a number, in lower case."""

    before: str
    after: str
    language: Language

    @cached_property
    def last_word(self) -> str:
        """The word before, separated only by a space or a hyphen."""
        found = _LAST_WORD.search(self.before)
        return found[1] if found else ""

    @cached_property
    def next_word(self) -> str:
        """The word after, skipping other numbers of the same list."""
        numbers = _LIST.match(self.after)
        found = _NEXT_WORD.match(self.after, numbers.end() if numbers else 0)
        return found[1] if found else ""

    @cached_property
    def sign(self) -> str:
        """The symbol after."""
        after = self.after.lstrip()
        return next((symbol for symbol in self.language.symbols if after.startswith(symbol)), "")

    @cached_property
    def is_in_date(self) -> bool:
        """Whether the name of a month is next to it."""
        months = "|".join(map(re.escape, self.language.months.split()))
        return bool(months) and (re.match(rf"\s(?:de |d['’]|of )?(?:{months})\b", self.after) is not None
                                 or (self._is_english and self.last_word in self.language.months.split()))

    @cached_property
    def _is_english(self) -> bool:
        return self.language.num2words.startswith("en")

    def check(self, number: str) -> None:
        """Refuse a number that is part of something longer: a range, a time, a date, a sum, a measure, an account.

        Raises:
            UnclearError: it is.
        """
        if _UNCLEAR_BEFORE.search(self.before) or _UNCLEAR_AFTER.match(self.after):
            raise UnclearError
        for char, is_near in ((self.before.rstrip()[-1:], self.before[-1:].strip()),
                              (self.after.lstrip()[:1], self.after[:1].strip())):
            kind = unicodedata.category(char or " ")
            if char and char not in (*self.language.symbols, *"`´¨+°") and (
                    kind in ("Sc", "Sm", "Sk") or (kind == "So" and (is_near or char in _UNCLEAR_SIGNS))):
                raise UnclearError
        is_degrees = self._is_english and re.match(r"\s?°(?!\s?[^\W\d_])", self.after)
        if self.after.lstrip().startswith("°") and not is_degrees:
            raise UnclearError  # degrees of a circle, of Celsius or centigrade, or an ordinal
        if self.after.startswith(("'", "’")) and not re.search(r"(?<![^\W_])['‘]", self.before):
            raise UnclearError  # feet
        if self.after.startswith('"') and self.before.count('"') % 2 == 0:
            raise UnclearError  # inches
        if len(number) > 1 and (_NEAR_DIGITS[0].search(self.before) or _NEAR_DIGITS[1].match(self.after)):
            raise UnclearError
        if number in ("2", "3") and _POWER.search(self.before):
            raise UnclearError
        if len(number) > 2 and number.isdecimal() and _DIALLED.search(self.before):
            raise UnclearError
        self._check_by_language(number)

    def _check_by_language(self, number: str) -> None:
        name = self.language.num2words
        if (endings := _APART.get(name[:2])) and re.match(rf"\s(?:{endings.replace(' ', '|')})\b", self.after):
            raise UnclearError
        if name[:2] in ("en", "fr") and self.last_word == "no":  # number, numéro
            raise UnclearError
        if self._is_english and re.fullmatch(r"\d{1,2}\.[0-5]\d", number) and _CLOCK.search(self.before):
            raise UnclearError
        if self._is_english and re.fullmatch(r"[1-9](?!00)\d\d", number) and self.last_word and (
                self.last_word in _NUMBERED or not self.next_word):
            raise UnclearError
        if name[:2] == "pt" and number == "3" and re.match(r"[\s-]feira", self.after):  # terça-feira
            raise UnclearError

    def check_decade(self, digits: str) -> None:
        """Refuse an English number before an s that may mean seconds, or for which there are two names.

        Raises:
            UnclearError: it is.
        """
        if not (re.fullmatch(r"1[1-9]\d0|2000", digits)
                or (re.fullmatch(r"[2-9]0", digits) and _DECADE.search(self.before))):
            raise UnclearError

    @cached_property
    def is_year(self) -> bool:
        """Whether the words around a four-digit number make it a year."""
        names, months = self.language.year_words.split(), "|".join(map(re.escape, self.language.months.split()))
        if not (self.last_word in names or (months and re.search(rf"(?:{months}) (?:de |del )?\Z", self.before))):
            return False
        if self._is_english:
            return not self.next_word or self.next_word in _AFTER_YEAR
        return not self.next_word.endswith(("s", "x"))  # most plurals, which would be counted

    def check_counted(self, number: str, words: str, currency: str) -> None:
        """Refuse a count whose form depends on the counted noun, which is not known.

        Raises:
            UnclearError: it does.
        """
        language, sign = self.language, currency or self.sign
        is_whole = language.decimal_mark not in number
        value = int(re.sub(r"\D", "", number)) if is_whole else -1
        if sign in language.currencies.split() and not is_whole:
            raise UnclearError  # three point fifty, three fifty
        if self._is_english and 0 < value < 32 and self.is_in_date:
            raise UnclearError  # May five, May fifth
        if value == 1 and sign in (*language.currencies.split(), "°"):
            raise UnclearError
        if currency and self.next_word and self.next_word not in _AFTER_MONEY:
            raise UnclearError
        if language.num2words[:2] in _ROMANCE and value > 0 and value % 1_000_000 == 0 and (
                sign or (self.next_word and self.next_word not in _OF)):
            raise UnclearError
        if language.num2words == "pt_BR" and "catorze" in words:  # or quatorze
            raise UnclearError
        if language.num2words[:2] == "fr" and re.fullmatch(r"1[1-9]\d\d", number):
            raise UnclearError  # mille neuf cents, dix-neuf cents
        if language.num2words == "es" and value == 100 and sign == "%":
            raise UnclearError  # cien por cien, cien por ciento
        if language.inflected and re.search(language.inflected, words) and not (1 < value < 32 and self.is_in_date):
            self._check_gender(number, words, sign)

    def _check_gender(self, number: str, words: str, sign: str) -> None:
        if sign:
            if sign not in _MASCULINE_SIGNS or re.search(r"uno?\Z", words):
                raise UnclearError
        elif self.last_word in self.language.named_by.split() or _NAMED.search(self.before):
            pass
        elif not (len(number) == 4 and number.isdecimal() and self.is_year) and (
                self.next_word or re.fullmatch(self.language.feminine_before, self.last_word)
                or self.before.endswith(("'", "’"))):
            raise UnclearError
