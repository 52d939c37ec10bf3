"""A command line with one flag per field of a dataclass; its help is the docstring under the field."""

import argparse
import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from corpora.languages import Language
from spaces.did_you_mean import near, said, same
from spaces.recipe import Recipe
from spaces.typed import convert


class Parser(argparse.ArgumentParser):
    """Reports what is wrong in one line; the usage of all flags would bury it."""

    def __init__(self, *, stray: str = "follows no flag; every value has one.", **options: Any) -> None:
        """`stray` says of a value that no flag and no argument takes what is wrong with it."""
        super().__init__(allow_abbrev=False, **options)
        self.stray = stray
        self.choices: list[str] = []  # fields of a recipe, which users may look for among the flags
        self._negative_number_matcher = re.compile(r"-\.?\d")  # `--budget -8h` is a bad value, not a missing one

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The parsed arguments. Exits with code 2 on wrong usage."""
        words = sys.argv[1:] if args is None else args
        for before, word in zip(["", *words], words, strict=False):
            if not word or (word.startswith("--") and word.endswith("=")):  # a shell's variable that was not set
                flag = word.rstrip("=") or (before if before.startswith("-") else "")
                self.error(f"{flag or 'an argument'} has an empty value. Give it one, or leave it out")
        given, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(_unknown_flag(unknown[0], self))
        return given

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        line = re.sub(r"\s*\n\s*", " ", message.strip())  # a path may have spaces in a row, which stay
        self.exit(2, f"error: {line.rstrip('.')}. See --help.\n")


def read_flags(parser: Parser, kind: type, title: str,
               arguments: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The parsed arguments, and those that are fields of a dataclass. Exits with code 2 on wrong usage."""
    _add_fields(parser, kind, title)
    parser.choices = [*Recipe().flat(), *(f.name for f in fields(Recipe))]
    given = parser.parse_args(arguments)
    values = {f.name: value for f in fields(kind) if (value := getattr(given, f.name)) is not None}
    return given, values


def _unknown_flag(argument: str, parser: Parser) -> str:
    flag = argument.partition("=")[0]
    if not flag.startswith("-"):
        return f"{argument!r} {parser.stray}"
    flags = [known for known in parser._option_string_actions if known not in ("-h", "--help")]
    found = same(flag, flags)
    if not found and (choice := same(flag, parser.choices)):
        return (f"{flag}: there is no such flag; {choice[0]} is a choice of the recipe. A search draws it from its "
                "space, and a training takes it from recipe.yaml, where you can change it.")
    return f"{flag}: there is no such flag{said(found or near(flag, flags))}."


def _add_fields(parser: argparse.ArgumentParser, kind: type, title: str) -> None:
    group = parser.add_argument_group(title)
    hints, documents = get_type_hints(kind), field_docstrings(kind)
    for f in fields(kind):
        flag, hint = "--" + f.name.replace("_", "-"), hints[f.name]
        document = documents[f.name].replace("%", "%%")
        if isinstance(f.default, bool):
            document += f" Default: {'yes' if f.default else 'no'}."
        elif isinstance(f.default, (str, int, float)):
            document += f" Default: {f.default}."
        if bool in (hint, *get_args(hint)):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=document)
        elif tuple in (get_origin(one) for one in (hint, *get_args(hint))):
            group.add_argument(flag, nargs="+", action="extend", metavar="PATH", help=document)
        else:
            group.add_argument(flag, type=_reader(hint), metavar=_metavar(hint), help=document)


def _metavar(hint: Any) -> str:
    options = [o for o in get_args(hint) if o is not type(None)] or [hint]
    if get_origin(hint) is Literal:
        return "|".join(options)
    names = {int: "N", float: "X", str: "TEXT", Language: "FILE"}
    return "|".join("|".join(get_args(o)) if get_origin(o) is Literal else names[o] for o in options)


def _reader(hint: Any) -> Any:
    """A function from a flag's text to a value of the field's type."""
    def read(text: str) -> Any:
        value: Any = text
        for kind in (int, float):
            if kind in (hint, *get_args(hint)):
                try:
                    value = kind(text)
                    break
                except ValueError:
                    continue
        return convert(hint, value, argparse.ArgumentTypeError, "the value")
    return read


def field_docstrings(kind: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, read from its source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    documents = {}
    for node, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            documents[node.target.id] = " ".join(str(after.value.value).split())  # type: ignore[union-attr]
    return documents
