"""The one frozen way that transcripts are normalised, and what it changed in them."""

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
"""All that is typed for an apostrophe, an okina or another letter of that shape; two are of Windows' code page."""
_MIDDLE_DOTS = "·•‧∙⋅⸱ꞏ・･ᐧ"
_SPELLED_OUT = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th", "ı": "i", "ŋ": "n",
                "ς": "σ", "ي": "ی", "ی": "ي", "ك": "ک", "ک": "ك"}
"""Letters that Unicode does not decompose into others; Arabic and Persian keyboards have two of yeh and of kaf."""
_LOOK_ALIKES = ("șş", "țţ", "đðɖ", "əǝә", "ӑă", "ӗĕ", "ҫç", "هہ")
"""Letters that keyboards and fonts take for each other; where a language has one of them, the others are that one."""
_INSIDE_WORDS = "՛՜՞"
"""Armenian writes them over the vowel of a word."""
_LENGTHENING = "ـߺ"
_REPLACEMENT = "\ufffd"
"""Stands where a letter was lost, nobody knows which."""
_CLASSES_OF_SPEECH = frozenset((0, 9, 84, 91, 103, 118, 129, 130, 132))
"""Unicode's combining classes of vowel signs, nasals and viramas; all other marks stand above and below letters."""


def normalise(text: str, language: Language) -> str:
    """Turn a raw transcript into the frozen reference: words of the language's letters, single spaces.

    Lower case, Unicode NFC, digits and a few symbols spelled out, foreign diacritics folded to their base letter,
    markup and punctuation dropped. Empty where no character of the alphabet is left. Letters of other scripts are
    dropped too, and digits where the language has no num2words: ask `why_unusable` for them.
    """
    text = spell_out(_joined(_lower(text, language), language), language)
    table = _table(language)
    text = " ".join(text.translate(table).split())
    if "·" in text:  # a letter inside words, and a bullet elsewhere
        text = " ".join(_LONE_MIDDLE_DOTS.sub(" ", text).split())
    if any(char in text for char in table.edge):
        text = " ".join(filter(None, (_without_lone(word, table.edge) for word in text.split())))
    return _drop_quotation_marks(text) if "'" in text else text


def _lower(text: str, language: Language) -> str:
    text = unicodedata.normalize("NFC", _ESCAPED.sub(r"\1", split_markup(text)[0]))
    text = _DOUBLED.sub('"', _BROKEN_LINES.sub(" ", text))
    if "ı" in language.letters:  # where I is the capital of the dotless i
        text = text.replace("I", "ı")
    return unicodedata.normalize("NFC", text.replace("İ", "i").lower())


def _joined(text: str, language: Language) -> str:
    """Take out, or put right, signs inside words that elsewhere part them."""
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
"""Of niño(s), which is one word."""


def why_unusable(raw: str, text: str, language: Language) -> tuple[str, str] | None:
    """Why a transcript is no reference, as a reason and its detail; None where it is one.

    `text` is what `normalise` made of it.
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
        return "digits", f"{raw[:80]!r} holds digits that {language.code!r}, with {by}, does not read out"
    if numeral := roman_numeral(raw, language):
        return "digits", f"{raw[:80]!r} holds {numeral!r}, which is spoken as a number"
    return None if text else ("no_text", f"{raw[:80]!r} holds no character of the alphabet of {language.code!r}")


_AT_AS_LETTER = re.compile(r"[^\W\d_]+@[^\W\d_]{1,3}(?![^\W_]|[.@-])")
"""Of tod@s; an address goes on."""


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
    """A digit, or another sign for a number (½, ², Ⅷ): dropped, it would still be spoken."""
    return any(char.isnumeric() and not char.isalpha() for char in text)


def foreign_letters(text: str, language: Language) -> str:
    """Return the letters that `normalise` cannot express in the language and so drops, each once, in order."""
    table = _table(language)
    return "".join(char for char in dict.fromkeys(_lower(text, language))
                   if not table[ord(char)].strip() and _is_spoken(char))


def _is_spoken(char: str) -> bool:
    """Whether a character stands for sound: a letter, or a sign that is a vowel of the letter before it."""
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
    """Character to base letter, filled as characters are met."""

    def __missing__(self, codepoint: int) -> str:
        char = chr(codepoint)
        is_accent = unicodedata.category(char) == "Mn" and not _is_spoken(char)
        self[codepoint] = _base_letters(char) or ("" if is_accent else char)
        return self[codepoint]


_FOLDING = _Folding()


def _base_letters(char: str) -> str:
    """The letters under a letter's diacritics, or "" where the character is no letter."""
    if not char.isalpha():
        return ""
    decomposed = unicodedata.normalize("NFKD", _SPELLED_OUT.get(char, char))
    return "".join(part for part in decomposed if not unicodedata.combining(part))


class _NormalisingTable(dict[int, str]):
    """Character to what stands for it in a normalised transcript, filled as characters are met."""

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
        """Letters that are no word by themselves."""

    def __missing__(self, codepoint: int) -> str:
        self[codepoint] = self._stand_in(chr(codepoint))
        return self[codepoint]

    def _stand_in(self, char: str) -> str:
        category = unicodedata.category(char)
        if spelled := self._spelled(char) if char.isalpha() or category[0] == "M" else "":
            return spelled
        # Marks, and what is invisible (soft hyphen, zero-width joiner), vanish without parting a word.
        is_mark = category[0] == "M" or category == "Cf" or (char.isalpha() and not _is_spoken(char))
        is_control = char < " " and not char.isspace()
        return "" if is_mark or is_control or char in _INSIDE_WORDS else " "

    def _spelled(self, char: str) -> str:
        """A letter by letters of the language that are nearest to it; empty where there are none."""
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
    """A joiner joins nothing at a word's edge, and an okina alone is a quotation mark."""
    word = word.strip("".join(char for char in edge if char not in _APOSTROPHES))
    return word if word.strip(edge) else ""


def _drop_quotation_marks(text: str) -> str:
    """Keep the apostrophes of "don't" and "'tis", drop those that stand around a quotation."""
    if text.count("'") > 1:
        text = _QUOTED.sub(r"\1", text)
    return " ".join(_LONE_APOSTROPHES.sub(" ", text).split())


# --- what was changed -----------------------------------------------------------------------------------------------

MAX_EXAMPLES = 5
MAX_FOUND = 50
"""Of a kind of change; rarer characters are left out of the report."""

FOLDED = "letters_folded"
_DIGITS = "digits_spelled_out"
_DOTTED = re.compile(r"([^\W\d_]+)\.")


class TextChanges:
    """What `normalise` did to transcripts, by kind: how many clips, through what, and a few of them before and after.

    Abbreviations are left as they are, and counted as a kind. Case counts for nothing.
    """

    def __init__(self, language: Language) -> None:
        self._language = language
        self._abbreviations = frozenset(language.abbreviations.split())
        self._unchanged = frozenset(language.alphabet)
        self._kinds: dict[str, tuple[str, str]] = {}
        self._num_clips = 0
        self._changes: dict[str, dict[str, Any]] = {}

    def observe(self, raw: str, text: str) -> None:
        """Count a transcript of which `normalise` made `text`."""
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
            is_new = not found or not found.keys() <= change["found"].keys()  # it shows what the others do not
            if len(change["examples"]) < MAX_EXAMPLES and is_new:
                change["examples"].append({"before": raw[:200], "after": text[:200]})
            change["clips"] += 1
            change["found"].update(found)

    def _kind(self, char: str) -> tuple[str, str]:
        """What becomes of a character outside the alphabet, and how it is named; empty where it is not worth a word."""
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
        """As plain values: `clips`, and by kind of change `clips`, `found` (what, and how often it stood in them)
        and `examples`."""
        return merge_changes([{"clips": self._num_clips, "changes": self._changes}])


def merge_changes(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the facts of several; the first examples that show something new stay, and what was found most often."""
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
