"""Remove markup from transcripts: tags, entities and transcribers' notes, which are not spoken."""

import html
import re

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_ENTITIES_IN_ENTITIES = 3
"""`&amp;amp;eacute;` occurs where a page was saved more than once."""
_TAG = re.compile(r"(?<!<)<(?:!--.*?--|[/!?|]?([^\W\d_][\w:-]*)[^<>]{0,300})>(?!>)", re.DOTALL)
_INSIDE_WORDS = frozenset(["a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "del", "dfn", "em", "font", "i",
                           "ins", "kbd", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup",
                           "tt", "u", "var", "wbr"])
"""Tags that do not split a word; all others do."""
_RAISED = re.compile(r"<su([bp])>\s*(\d+)\s*</su\1>", re.IGNORECASE)
_PAIR = re.compile(r"\[(b|i|u|s)\](.*?)\[/\1\]", re.IGNORECASE | re.DOTALL)
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_NOTE = re.compile(r"\[[^\[\]]{1,60}\]|\{\\?[^\W\d_][\w-]{0,40}\}")
_MAX_WORDS = 3
"""Most words of a note in brackets; more are prose, which is read."""
_LEAST_ATTACHED = 4
"""Fewest letters of a note attached to a word; fewer belong to the word: niño[s], [t]he."""


def split_markup(text: str) -> tuple[str, list[str]]:
    """The text without its markup, entities decoded, and what was removed, in lower case.

    Tags of HTML (`<i>`), marks of recognisers (`<unk>`, `[noise]`, `{laugh}`) and footnotes (`[1]`) are markup.
    """
    if not any(char in text for char in "&<[{"):
        return text, []
    found: list[str] = []

    def decoded(match: re.Match[str]) -> str:
        char = html.unescape(match[0])
        if char != match[0]:
            found.append(match[0])
        return char

    def without_tag(match: re.Match[str]) -> str:
        found.append(match[0].lower())
        return "" if (match[1] or "").lower() in _INSIDE_WORDS else " "

    def without_note(match: re.Match[str]) -> str:
        if not _is_note(match):
            return match[0]
        if _is_attached(match) and len(match[0]) < _LEAST_ATTACHED + 2 and not match[0][1:-1].isdecimal():
            return match[0][1:-1]
        found.append(match[0].lower())
        return " "

    for _ in range(_ENTITIES_IN_ENTITIES):
        text = _ENTITY.sub(decoded, text)
    text = _RAISED.sub(lambda match: match[2].translate(_SUPERSCRIPTS), text)
    text = _TAG.sub(without_tag, text)
    text = _LINK.sub(r"\1", _PAIR.sub(r"\2", text))
    return _NOTE.sub(without_note, text), found


_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
"""A raised digit is a separate number, not the last digit of the one before."""


def _is_note(match: re.Match[str]) -> bool:
    inside = match[0][1:-1]
    return any(map(str.isalnum, inside)) and len(inside.split()) <= _MAX_WORDS


def _is_attached(match: re.Match[str]) -> bool:
    beside = match.string[max(0, match.start() - 1) : match.start()] + match.string[match.end() : match.end() + 1]
    return any(map(str.isalpha, beside))
