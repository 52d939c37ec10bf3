"""The frozen normalisation of transcripts, and a record of what it changed."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import combinations
from typing import Any

from corpora.ambiguity import roman_numeral
from corpora.languages import Language
from corpora.markup import split_markup
from corpora.numbers import spell_out

NORMALISER_VERSION = "3"
"""Part of every cache key: raise it whenever `normalise` gives another text for any input in a known language."""

_TURNED, _RAISED, _STRAIGHT = "ʻ‘ʽ‛ʿ`ˋ‵ߵ", "ʼ’´′ʾˊˈʹꞌߴ՚׳\x91\x92", "'＇"
_APOSTROPHES = _STRAIGHT + _TURNED + _RAISED
"""Every character typed as an apostrophe, okina or similar letter; two are from Windows' code page."""
_MIDDLE_DOTS = "·•‧∙⋅⸱ꞏ・･ᐧ"
_SPELLED_OUT = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th", "ı": "i", "ŋ": "n",
                "ς": "σ", "ي": "ی", "ی": "ي", "ك": "ک", "ک": "ك"}
"""Letters that Unicode does not decompose; Arabic and Persian keyboards have different yeh and kaf."""
_LOOK_ALIKES = ("șş", "țţ", "đðɖ", "əǝә", "ӑă", "ӗĕ", "ҫç", "هہ")
"""Letters that keyboards and fonts take for each other; where a language has one of them, the others are that one."""
_INSIDE_WORDS = "՛՜՞"
"""Armenian writes these over the vowel of a word."""
_LENGTHENING = "ـߺ"
_REPLACEMENT = "\ufffd"
"""Stands for an unknown lost letter."""
_CLASSES_OF_SPEECH = frozenset((0, 9, 84, 91, 103, 118, 129, 130, 132))
"""Unicode's combining classes of vowel signs, nasals and viramas; all other marks are above or below letters."""


def normalise(text: str, language: Language) -> str:
    """Turn a raw transcript into the frozen reference: words of the language's letters, single spaces.

    Lower case, Unicode NFC, digits and a few symbols spelled out, foreign diacritics folded to their base letter,
    markup and punctuation dropped. Empty if no character of the alphabet is left. Letters of other scripts are dropped
    too, as are digits if the language has no num2words; `why_unusable` reports them.
    """
    text = spell_out(_joined(_lower(text, language), language), language)
    table = _table(language)
    text = " ".join(text.translate(table).split())
    if "·" in text:  # a letter inside words, a bullet elsewhere
        text = " ".join(_LONE_MIDDLE_DOTS.sub(" ", text).split())
    if any(char in text for char in table.edge):
        text = " ".join(filter(None, (_without_lone(word, table.edge) for word in text.split())))
    return _drop_quotation_marks(text) if "'" in text else text


def _lower(text: str, language: Language) -> str:
    text = unicodedata.normalize("NFC", _ESCAPED.sub(r"\1", split_markup(text)[0]))
    text = _DOUBLED.sub('"', _BROKEN_LINES.sub(" ", text))
    if "ı" in language.letters:  # then I is the capital of the dotless i
        text = text.replace("I", "ı")
    return unicodedata.normalize("NFC", text.replace("İ", "i").lower())


def _joined(text: str, language: Language) -> str:
    """Remove or correct signs that are part of a word here, but separate words elsewhere."""
    dot = "·" if "·" in language.letters else ""
    text = _BETWEEN_L.sub(dot, text)
    if dot:
        text = text.replace("l.l", "l·l")
    if _table(language).letter_of_apostrophes not in ("", "'"):
        text = _QUOTES_OF_OKINA.sub(r"\1\2", text)
    return _ENDING.sub(r"\1", _GERSHAYIM.sub("", text))


_ESCAPED = re.compile(r"\\(['\"])")
_BROKEN_LINES = re.compile(r"\\[nrt]")
"""Of text that was written as JSON or SQL twice."""
_DOUBLED = re.compile(r"''+|``+|´´+|‘‘+|’’+|′′+")
"""Quotation marks of apostrophes."""
_BETWEEN_L = re.compile(rf"(?<=l)[{_MIDDLE_DOTS}\u0307](?=l)")
_QUOTES_OF_OKINA = re.compile(r"(?<!\w)‘([^‘’]*)’(?!\w)|(?<!\w)'([^']*)'(?!\w)")
_GERSHAYIM = re.compile(r"(?<=[א-ת])[\"״”“](?=[א-ת])")


_ENDING = re.compile(r"(?<=[^\W\d_])\(([^\W\d_]{1,3})\)")
"""As in niño(s), which is one word."""


def why_unusable(raw: str, text: str, language: Language) -> tuple[str, str] | None:
    """Why a transcript cannot be a reference, as a reason and its detail; None if it can.

    `text` is the result of `normalise`.
    """
    if wrong := misread(raw):
        return "foreign_letters", f"{raw[:80]!r} is {wrong[:80]!r} in UTF-8, read in another encoding"
    if "@" in raw and (found := _AT_AS_LETTER.search(raw)):
        return "foreign_letters", f"{raw[:80]!r} holds {found[0]!r}, which is no word as it is written"
    if foreign := foreign_letters(raw, language):
        return "foreign_letters", f"{raw[:80]!r} holds {foreign!r}, which {language.code!r} cannot spell"
    lowered = _lower(raw, language)
    if _holds_number(lowered) and _holds_number(spell_out(_joined(lowered, language), language)):
        by = f"num2words {language.num2words!r}" if language.num2words else "no num2words"
        return "digits", f"{raw[:80]!r} holds digits that {language.code!r}, with {by}, cannot read out"
    if numeral := roman_numeral(raw, language):
        return "digits", f"{raw[:80]!r} holds {numeral!r}, which is spoken as a number"
    return None if text else ("no_text", f"{raw[:80]!r} holds no character of the alphabet of {language.code!r}")


_AT_AS_LETTER = re.compile(r"[^\W\d_]+@[^\W\d_]{1,3}(?![^\W_]|[.@-])")
"""The @ of tod@s; in an e-mail address more letters follow."""


def misread(text: str) -> str:
    """What a text is that was saved in UTF-8 and read as Windows-1252 (canâ€™t); "" where it was not."""
    if text.isascii():
        return ""
    try:
        saved = b"".join(char.encode("cp1252", "ignore") or char.encode("latin-1") for char in text)
        return saved.decode("utf-8")
    except UnicodeError:
        return ""


def _holds_number(text: str) -> bool:
    """Whether there is a digit or another number sign (½, ², Ⅷ), which is spoken, so it must not be dropped."""
    return any(char.isnumeric() and not char.isalpha() for char in text)


def foreign_letters(text: str, language: Language) -> str:
    """The letters that `normalise` drops because the language cannot express them, each once, in order."""
    table = _table(language)
    return "".join(char for char in dict.fromkeys(_lower(text, language))
                   if not table[ord(char)].strip() and _is_spoken(char))


def _is_spoken(char: str) -> bool:
    """Whether a character is spoken: a letter, or a vowel sign of the letter before it."""
    if char.isalpha():  # modifier letters are marks: "ː" stands for a colon in real transcripts
        return not (unicodedata.category(char) == "Lm" and "ʰ" <= char <= "˿") and char not in (
            *_LENGTHENING, *_APOSTROPHES, *_MIDDLE_DOTS)
    is_indic = "\u0900" <= char <= "\u17ff" or "\ua800" <= char <= "\uabff" or "\U00011000" <= char <= "\U00011fff"
    return char == _REPLACEMENT or (is_indic and unicodedata.category(char) in ("Mn", "Mc")
                                    and unicodedata.combining(char) in _CLASSES_OF_SPEECH)


def fold_accents(text: str) -> str:
    """Fold every letter to its base letter: á to a, ñ to n, ü to u."""
    return text if text.isascii() else text.translate(_FOLDING)


class _Folding(dict[int, str]):
    """Maps a character to its base letter, filled on demand."""

    def __missing__(self, codepoint: int) -> str:
        char = chr(codepoint)
        is_accent = unicodedata.category(char) == "Mn" and not _is_spoken(char)
        self[codepoint] = _base_letters(char) or ("" if is_accent else char)
        return self[codepoint]


_FOLDING = _Folding()


def _base_letters(char: str) -> str:
    """The letters under a letter's diacritics, or "" if the character is not a letter."""
    if not char.isalpha():
        return ""
    decomposed = unicodedata.normalize("NFKD", _SPELLED_OUT.get(char, char))
    return "".join(part for part in decomposed if not unicodedata.combining(part))


class _NormalisingTable(dict[int, str]):
    """Maps a character to its form in a normalised transcript, filled on demand."""

    def __init__(self, language: Language) -> None:
        super().__init__({ord(char): char for char in language.alphabet})
        self._letters = frozenset(language.letters)
        self.letter_of_apostrophes = "'" if language.has_apostrophe else ""
        for shapes in (_RAISED, _TURNED, _STRAIGHT):
            letter = next((char for char in shapes if char in self._letters), "")
            self.letter_of_apostrophes = self.letter_of_apostrophes or letter
        for shapes in (_RAISED, _TURNED, _STRAIGHT):
            letter = "'" if language.has_apostrophe and shapes == _STRAIGHT else next(
                (char for char in shapes if char in self._letters), self.letter_of_apostrophes)
            for char in set(shapes) - set(language.alphabet):
                self[ord(char)] = letter
        if "·" in self._letters:
            self.update(dict.fromkeys(map(ord, _MIDDLE_DOTS), "·"))
        self.edge = "".join(char for char in language.letters
                            if char in _APOSTROPHES or unicodedata.category(char) == "Cf")
        """Letters that are not words by themselves."""

    def __missing__(self, codepoint: int) -> str:
        self[codepoint] = self._stand_in(chr(codepoint))
        return self[codepoint]

    def _stand_in(self, char: str) -> str:
        category = unicodedata.category(char)
        if spelled := self._spelled(char) if char.isalpha() or category[0] == "M" else "":
            return spelled
        # Marks and invisible characters (soft hyphen, zero-width joiner) vanish without splitting a word.
        is_mark = category[0] == "M" or category == "Cf" or (char.isalpha() and not _is_spoken(char))
        is_control = char < " " and not char.isspace()
        return "" if is_mark or is_control or char in _INSIDE_WORDS else " "

    def _spelled(self, char: str) -> str:
        """A letter spelled by the nearest letters of the language; empty if there are none."""
        if (known := self.get(ord(char), " ")) != " " or char in self._letters:
            return known
        for twin in next((twins for twins in _LOOK_ALIKES if char in twins), ""):
            if twin in self._letters:
                return twin
        other = _SPELLED_OUT.get(char) or unicodedata.normalize("NFKC", char).lower()
        if other != char and _SPELLED_OUT.get(other) != char:
            return "".join(map(self._spelled, other))
        if other in self._letters:
            return other
        apart = unicodedata.normalize("NFD", char)
        base, marks = apart[0], apart[1:]
        needed = [mark for mark in marks if _is_spoken(mark)]
        for size in range(len(marks), len(needed) - 1, -1):
            for kept in combinations(marks, size):
                spelled = base + "".join(kept)
                for found in (unicodedata.normalize("NFC", spelled), spelled):
                    if set(needed) <= set(kept) and self._letters.issuperset(found):
                        return found
        return ""


@lru_cache(maxsize=16)
def _table(language: Language) -> _NormalisingTable:
    return _NormalisingTable(language)


_LONE_MIDDLE_DOTS = re.compile(r"(?<![^\W\d_])·|·(?![^\W\d_])")
_QUOTED = re.compile(r"(?<![^ ])'((?:[^']|(?<=[^ '])'(?=[^ ']))*)'(?![^ ])")
_LONE_APOSTROPHES = re.compile(r"(?<![^ '])'+(?![^ '])")


def _without_lone(word: str, edge: str) -> str:
    """Drop joiners at a word's edge, where they join nothing, and lone okinas, which are quotation marks."""
    word = word.strip("".join(char for char in edge if char not in _APOSTROPHES))
    return word if word.strip(edge) else ""


def _drop_quotation_marks(text: str) -> str:
    """Keep the apostrophes of "don't" and "'tis", drop those around a quotation."""
    if text.count("'") > 1:
        text = _QUOTED.sub(r"\1", text)
    return " ".join(_LONE_APOSTROPHES.sub(" ", text).split())


# --- what was changed -----------------------------------------------------------------------------------------------

MAX_EXAMPLES = 5
MAX_FOUND = 50
"""Characters reported per kind of change; rarer ones are left out."""

FOLDED = "letters_folded"
_DIGITS = "digits_spelled_out"
_DOTTED = re.compile(r"([^\W\d_]+)\.")


class TextChanges:
    """What `normalise` changed in transcripts, by kind: the number of clips, the characters, and a few examples.

    Abbreviations are left as they are, and counted as a kind. Changes of case do not count.
    """

    def __init__(self, language: Language) -> None:
        self._language = language
        self._abbreviations = frozenset(language.abbreviations.split())
        self._unchanged = frozenset(language.alphabet)
        self._kinds: dict[str, tuple[str, str]] = {}
        self._num_clips = 0
        self._changes: dict[str, dict[str, Any]] = {}

    def observe(self, raw: str, text: str) -> None:
        """Count a transcript that `normalise` turned into `text`."""
        self._num_clips += 1
        lowered, markup = _lower(raw, self._language), split_markup(raw)[1]
        seen: dict[str, Counter[str]] = {"markup_removed": Counter(markup)} if markup else {}
        for char in set(lowered) - self._unchanged:
            kind, name = self._kinds.get(char) or self._kinds.setdefault(char, self._kind(char))
            if kind:
                seen.setdefault(kind, Counter()).update({name: lowered.count(char)} if name else {})
        if "." in lowered and (kept := [word for word in _DOTTED.findall(lowered) if word in self._abbreviations]):
            seen["abbreviations_kept"] = Counter(kept)
        for kind, found in seen.items():
            change = self._changes.setdefault(kind, {"clips": 0, "found": Counter(), "examples": []})
            is_new = not found or not found.keys() <= change["found"].keys()  # it shows something new
            if len(change["examples"]) < MAX_EXAMPLES and is_new:
                change["examples"].append({"before": raw[:200], "after": text[:200]})
            change["clips"] += 1
            change["found"].update(found)

    def _kind(self, char: str) -> tuple[str, str]:
        """What happens to a character outside the alphabet, and its name; empty if it is not worth reporting."""
        if char.isspace() or (char.isalpha() and char in self._language.ordinal_marks):
            return "", ""
        if char.isdecimal():
            return _DIGITS, ""
        if any(char in symbol for symbol in self._language.symbols) and not char.isalpha():
            return "symbols_spelled_out", char
        stand_in, category = _table(self._language)[ord(char)].strip(), unicodedata.category(char)
        if stand_in:
            if unicodedata.normalize("NFC", stand_in) == char:
                return "", ""
            is_variant = char in _APOSTROPHES or char in _MIDDLE_DOTS
            return "variants_made_one" if is_variant else FOLDED, f"{char}→{stand_in}"
        if _is_spoken(char):
            return "letters_dropped", char
        if char.isalpha() or category[0] == "M":
            return "marks_dropped", f"◌{char}" if category[0] == "M" else char
        return "punctuation_dropped" if category[0] == "P" or char in _APOSTROPHES else "characters_dropped", char

    def facts(self) -> dict[str, Any]:
        """As plain values: `clips`, and by kind of change `clips`, `found` (counts of characters) and `examples`."""
        return merge_changes([{"clips": self._num_clips, "changes": self._changes}])


def merge_changes(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up several facts, keeping the first examples that show something new, and the most frequent characters."""
    num_clips = 0
    changes: dict[str, dict[str, Any]] = {}
    for part in parts:
        num_clips += part["clips"]
        for kind, change in part["changes"].items():
            whole = changes.setdefault(kind, {"clips": 0, "found": Counter(), "examples": []})
            if not change["found"] or not change["found"].keys() <= whole["found"].keys():
                whole["examples"] = (whole["examples"] + change["examples"])[:MAX_EXAMPLES]
            whole["clips"] += change["clips"]
            whole["found"].update(change["found"])
    return {"clips": num_clips, "changes": {
        kind: change | {"found": dict(change["found"].most_common(MAX_FOUND))}
        for kind, change in sorted(changes.items())}}
