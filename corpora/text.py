"""The one frozen way that transcripts are normalised, and what it changed in them."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from corpora.languages import Language
from corpora.numbers import spell_out

NORMALISER_VERSION = "3"
"""Part of every cache key: raise it whenever `normalise` gives another text for any input in a known language."""

_APOSTROPHES = "'’‘ʼ`´′"
_MIDDLE_DOTS = "·•‧∙⋅"
_SPELLED_OUT = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th", "ı": "i", "ŋ": "n"}
"""Latin letters that Unicode does not decompose into a base letter and a mark."""


def normalise(text: str, language: Language) -> str:
    """Turn a raw transcript into the frozen reference: words of the language's letters, single spaces.

    Lower case, Unicode NFC, digits and a few symbols spelled out, foreign diacritics folded to their base letter,
    punctuation dropped. Empty where no character of the alphabet is left. Letters of other scripts are dropped too, and
    digits where the language has no num2words: ask `why_unusable` for them.
    """
    text = spell_out(_lower(text, language), language)
    text = " ".join(text.translate(_table(language)).split())
    if "·" in text:  # a letter of Catalan, and a bullet wherever it is not between two l
        text = " ".join(_LONE_MIDDLE_DOTS.sub(" ", text).split())
    return _drop_quotation_marks(text) if "'" in text else text


def _lower(text: str, language: Language) -> str:
    if "ı" in language.letters:  # where I is the capital of the dotless i
        text = text.replace("I", "ı")
    return unicodedata.normalize("NFC", text).lower()


def why_unusable(raw: str, text: str, language: Language) -> tuple[str, str] | None:
    """Why a transcript is no reference, as a reason and its detail; None where it is one.

    `text` is what `normalise` made of it.
    """
    if foreign := foreign_letters(raw, language):
        return "foreign_letters", f"{raw[:80]!r} holds {foreign!r}, which {language.code!r} cannot spell"
    if _holds_number(raw) and _holds_number(spell_out(_lower(raw, language), language)):
        by = f"num2words {language.num2words!r}" if language.num2words else "no num2words"
        return "digits", f"{raw[:80]!r} holds digits that {language.code!r}, with {by}, does not read out"
    return None if text else ("no_text", f"{raw[:80]!r} holds no character of the alphabet of {language.code!r}")


def _holds_number(text: str) -> bool:
    """A digit, or another sign for a number (½, ², Ⅷ): dropped, it would still be spoken."""
    return any(char.isnumeric() and not char.isalpha() for char in text)


def foreign_letters(text: str, language: Language) -> str:
    """Return the letters that `normalise` cannot express in the language and so drops, each once, in order."""
    table = _table(language)
    dropped = (char for char in _lower(text, language) if char.isalpha() and not table[ord(char)].strip())
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
        for char in set(_APOSTROPHES) - set(language.letters):
            self[ord(char)] = "'" if language.has_apostrophe else ""
        if "·" in language.letters:
            self.update(dict.fromkeys(map(ord, _MIDDLE_DOTS), "·"))

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


_LONE_MIDDLE_DOTS = re.compile(r"(?<!l)·|·(?!l)")
_QUOTED = re.compile(r"(?<![^ ])'((?:[^']|(?<=[^ '])'(?=[^ ']))*)'(?![^ ])")
_LONE_APOSTROPHES = re.compile(r"(?<![^ '])'+(?![^ '])")


def _drop_quotation_marks(text: str) -> str:
    """Keep the apostrophes of "don't" and "'tis", drop those that stand around a quotation."""
    if text.count("'") > 1:
        text = _QUOTED.sub(r"\1", text)
    return " ".join(_LONE_APOSTROPHES.sub(" ", text).split())


# --- what was changed -----------------------------------------------------------------------------------------------

MOST_EXAMPLES = 5
MOST_FOUND = 50
"""Of a kind of change; rarer characters are left out of the report."""

_DIGITS = "digits_spelled_out"
_DOTTED = re.compile(r"([^\W\d_]+)\.")


class TextChanges:
    """What `normalise` did to transcripts, by kind: how many clips, through what, and a few of them before and after.

    Abbreviations are left as they are, and counted as a kind. Case and typographic apostrophes count for nothing.
    """

    def __init__(self, language: Language) -> None:
        self._language = language
        self._abbreviations = frozenset(language.abbreviations.split())
        self._unchanged = frozenset(language.alphabet)
        self._kinds: dict[str, str] = {}
        self._num_clips = 0
        self._changes: dict[str, dict[str, Any]] = {}

    def see(self, raw: str, text: str) -> None:
        """Count a transcript of which `normalise` made `text`."""
        self._num_clips += 1
        lowered = _lower(raw, self._language)
        seen: dict[str, set[str]] = {}
        for char in set(lowered) - self._unchanged:
            if kind := self._kinds.get(char) or self._kinds.setdefault(char, self._kind(char)):
                seen.setdefault(kind, set()).update(() if kind == _DIGITS else char)
        if "." in lowered and (kept := self._abbreviations.intersection(_DOTTED.findall(lowered))):
            seen["abbreviations_kept"] = set(kept)
        for kind, found in seen.items():
            change = self._changes.setdefault(kind, {"clips": 0, "found": Counter(), "examples": []})
            is_new = not found or not found <= change["found"].keys()  # it shows what the others do not
            if len(change["examples"]) < MOST_EXAMPLES and is_new:
                change["examples"].append({"before": raw[:200], "after": text[:200]})
            change["clips"] += 1
            change["found"].update(found)

    def _kind(self, char: str) -> str:
        """What becomes of a character outside the alphabet; empty where it is not worth a word."""
        if char.isspace() or (char.isalpha() and char in self._language.ordinal_marks):
            return ""
        if char.isdecimal():
            return _DIGITS
        if any(char in symbol for symbol in self._language.symbols) and not char.isalpha():
            return "symbols_spelled_out"
        stand_in = _table(self._language)[ord(char)]
        category = unicodedata.category(char)
        if stand_in.strip() in ("'", "·"):
            return ""
        if stand_in.strip() or category == "Mn":
            return "diacritics_folded"
        return "punctuation_dropped" if category[0] == "P" or char in _APOSTROPHES else "characters_dropped"

    def facts(self) -> dict[str, Any]:
        """As plain values: `clips`, and by kind of change `clips`, `found` (what stood in how many of them) and
        `examples`."""
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
                whole["examples"] = (whole["examples"] + change["examples"])[:MOST_EXAMPLES]
            whole["clips"] += change["clips"]
            whole["found"].update(change["found"])
    return {"clips": num_clips, "changes": {
        kind: change | {"found": dict(change["found"].most_common(MOST_FOUND))}
        for kind, change in sorted(changes.items())}}
