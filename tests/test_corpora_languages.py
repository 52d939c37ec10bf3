"""Languages that are known, and others by their fields: what contradicts itself is refused by name, value and mend."""

import dataclasses
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from corpora.languages import LANGUAGES, Language, LanguageError, language
from corpora.text import normalise

pytestmark = pytest.mark.timeout(30)

GALICIAN: dict[str, Any] = {"code": "gl", "letters": "abcdefghijklmnñopqrstuvwxyzáéíóúïü"}


def test_alphabets_are_in_nemo_label_order() -> None:
    assert language("en").alphabet == " abcdefghijklmnopqrstuvwxyz'"
    assert language("es").alphabet == " abcdefghijklmnopqrstuvwxyzáéíñóúü"
    assert sorted(LANGUAGES) == ["ca", "en", "es", "fr", "it", "pt"]


def test_unknown_language_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(LanguageError, match=r"language is 'xx'; it must be one of ca, en, es, fr, it, pt.*FILE.yaml"):
        language("xx")


@pytest.mark.parametrize(("changes", "message"), [
    ({"code": "galego"}, "code is 'galego'; it must be one such as es"),
    ({"letters": ""}, "letters is ''; it must hold lower-case"),
    ({"letters": "abC"}, "letters is 'abC'; it must hold lower-case"),
    ({"letters": "ane\u0301"}, "in Unicode NFC: 'ané'."),
    ({"letters": "ab a"}, "letters holds ' '"),
    ({"letters": "aba"}, "letters holds 'a'; it must hold every letter once"),
    ({"letters": "ab'"}, "(has_apostrophe says whether there is one)"),
    ({"decimal_mark": ";"}, "decimal_mark is ';'; it must be '.' or ','."),
    ({"symbols": {"%": 3}}, "symbols holds '%': 3; it must map text to text."),
    ({"num2words": "es"}, "decimal_words has no word for '.', the decimal mark"),
    ({"num2words": "gl", "decimal_words": {".": "punto"}}, "num2words is 'gl', which num2words does not know"),
    ({"num2words": "fr", "decimal_words": {".": "point"}, "letters": "abcdefghijklmnopqrstuvwxyz"},
     "letters lacks 'é', which numbers in num2words' 'fr' are written with"),
])
def test_language_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LanguageError, match=re.escape(message)):
        Language(**(GALICIAN | changes))


def test_file_describes_a_language(tmp_path: Path) -> None:
    """In Python as on the command line."""
    file = tmp_path / "gl.yaml"
    file.write_text('\ufeffcode: gl\nletters: abcñ\nsymbols: {"%": por cento}\n', encoding="utf-8")
    assert language(file) == language(str(file)) == Language(code="gl", letters="abcñ", symbols={"%": "por cento"})
    assert normalise("ÑA", language(str(file))) == "ña" and language("es") is LANGUAGES["es"]


@pytest.mark.parametrize(("content", "message"), [
    (None, "gl.yaml: there is no such language. Check the path."),
    ("code: [", "gl.yaml: not a readable YAML language (line "),
    ("", "gl.yaml: a language is a YAML mapping; this is empty."),
    ("letters: abc", "gl.yaml: code is missing"), ("code: gl", "gl.yaml: letters is missing"),
    ("code: no\nletters: abc", "gl.yaml: code is False; it must be text. Put it in quotes."),
    ("code: gl\nletters: abc\nhas_apostrophe: 1", "has_apostrophe is 1; it must be true or false"),
    ("code: gl\nletters: abc\nsymbols: x", "symbols is 'x'; it must be a mapping"),
    ("code: gl\nletter: abc", "letter: there is no such field; the nearest is letters"),
    ("code: gl\nletters: aba", "gl.yaml: letters holds 'a'; it must hold every letter once"),
    ("code: gl\nletters: abc\ninflected: '('", "inflected is '('; it must be a regular expression"),
    ("code: hi\nletters: \u095b\u0958", "it must hold lower-case letters in Unicode NFC: 'ज\u093cक'"),
])
def test_bad_file_is_named_with_its_field_and_value(content: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "gl.yaml"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(LanguageError) as caught:
        language(str(file))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_key_is_of_all_that_is_in_it() -> None:
    keys = {code: spoken.key for code, spoken in LANGUAGES.items()}
    assert len(set(keys.values())) == len(LANGUAGES)
    spanish = language("es")
    assert dataclasses.replace(spanish).key == pickle.loads(pickle.dumps(spanish)).key == keys["es"]
    other = dataclasses.replace(spanish, symbols=spanish.symbols | {"%": "porcentaje"})
    assert other.key != spanish.key and other != spanish and len({other, spanish}) == 2


@pytest.mark.parametrize(("wrong", "message"), [
    ({"code": 5}, "code is 5; it must be text"), ({"letters": ["a"]}, "letters is \\['a'\\]; it must be text"),
    ({"symbols": ["%"]}, "symbols is .* it must be a mapping"), ({"months": 3}, "months is 3; it must be text"),
    ({"has_apostrophe": "no"}, "has_apostrophe is 'no'; it must be true or false"),
    ({"feminine": {"(": "a"}}, "feminine is '\\('; it must be a regular expression"),
    ({"feminine": {"o": r"\1"}}, "feminine is 'o'; it must be a regular expression"),
])
def test_language_made_in_python_is_held_to_its_types(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(LanguageError, match=message):
        Language(**{"code": "xx", "letters": "abc"} | wrong)


@pytest.mark.parametrize("name", [None, 5, b"es", ["es"]])
def test_language_is_looked_up_by_text_or_path(name: Any) -> None:
    with pytest.raises(LanguageError, match="it must be a code such as es, or the path of a YAML file"):
        language(name)
