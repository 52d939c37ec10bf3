"""Identity: the content that a study is made of, to check that a resumed study is still the same one."""

import ast
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from search.config import ConfigError, StudyConfig
from search.records.files import sha256, write_json
from spaces.typed import build

NO_SPACES = frozenset({"did_you_mean", "recipe", "typed"})
"""Modules of `spaces/` that are not search spaces themselves."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Content keys; copying, moving or touching a file does not change its key."""

    corpus: tuple[str, ...]
    """The key of each corpus, as used for its features; a tarball is not read in full."""
    source: str
    """SHA-256 of the .nemo file; empty for random weights."""
    space: str
    """Key of the space's module and of the spaces that it imports."""
    language: str = ""
    """Key of the language: its letters and how numbers are read out; empty in older runs."""
    features: str
    """Versions of the code that turns clips into features and text."""

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Identity":
        """Read what `save` wrote.

        Raises:
            ConfigError: the file is damaged.
        """
        try:
            return build(cls, json.loads(path.read_text(encoding="utf-8")), ConfigError)
        except (ConfigError, ValueError, TypeError) as error:
            raise ConfigError(f"{path}: what the study is made of cannot be read ({error}). Restore the file from a "
                              "copy, or start a new study with --out.") from None

    def check_same(self, now: "Identity", config: StudyConfig, path: Path) -> None:
        """Refuse to resume a study whose content has changed.

        Raises:
            ConfigError: the content changed; the message lists each change.
        """
        if changes := list(self._changes(now, config)):
            raise ConfigError(f"{path}: {'; '.join(changes)}. A resumed study keeps what it is made of, as its trials "
                              "could not be compared. Put back what was there, or start a new study with --out.")

    def _changes(self, now: "Identity", config: StudyConfig) -> Iterator[str]:
        if len(self.corpus) != len(now.corpus):
            yield f"corpus was {len(self.corpus)} at the study's start, and is {len(now.corpus)} now"
        else:
            paths = config.corpora or ("(embedded)",)
            yield from (_changed(f"corpus {path}", *keys)
                        for path, *keys in zip(paths, self.corpus, now.corpus, strict=True) if keys[0] != keys[1])
        if self.source != now.source:
            yield _changed(f"source {' '.join(config.sources.values()) or '(embedded)'}", self.source, now.source)
        if self.space != now.space:
            yield _changed(f"space {config.space} (spaces/{config.space}.py or one it imports)", self.space, now.space)
        if self.language != now.language:
            yield _changed(f"language {config.spoken.code}", self.language, now.language)
        if self.features != now.features:
            yield _changed("what Cuarzo makes of a clip", self.features, now.features)


def _changed(what: str, before: str, now: str) -> str:
    return f"{what} has changed in content (key {before[:12] or 'none'} at the study's start, {now[:12] or 'none'} now)"


def space_key(space: Path) -> str:
    """A key of a space's module and of the spaces that it imports."""
    return hashlib.sha256("".join(map(sha256, _modules(space))).encode()).hexdigest()


def _modules(space: Path) -> list[Path]:
    """The module of a space and of the other spaces that it imports, by name, without the recipe."""
    found, left = set(), [space]
    while left:
        path = left.pop()
        found.add(path)
        names = set()
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom):  # `from spaces import spanish`, `from spaces.spanish import choose`
                names |= {str(node.module).rpartition(".")[2], *(alias.name for alias in node.names)}
            elif isinstance(node, ast.Import):
                names |= {alias.name.rpartition(".")[2] for alias in node.names}
        others = (space.parent / f"{name}.py" for name in names - NO_SPACES)
        left += [other for other in others if other not in found and other.is_file()]
    return sorted(found)
