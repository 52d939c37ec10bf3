"""The frozen reference: the texts of dev and test by clip, and a key that shows whether two studies share it."""

import hashlib
import io
import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corpora.features import FeatureStore
from corpora.manifest import CorpusError
from corpora.text import NORMALISER_VERSION

SPLITS = ("dev", "test")
"""The splits on which recipes are judged."""

_VERSION = "normaliser_version"


@dataclass(frozen=True)
class Reference:
    """The text of each clip of dev and test, in the order of the feature store."""

    rows: tuple[tuple[str, str, str], ...]
    """Split, clip and text of each."""
    normaliser_version: str

    @classmethod
    def of(cls, store: FeatureStore) -> "Reference":
        """The texts in a store; clip ids are without their corpus's index."""
        splits = [(name, store.split(name)) for name in SPLITS]
        return cls(tuple((name, re.sub(r"^\d+/", "", clip), text) for name, split in splits
                         for clip, text in zip(split.ids, split.texts, strict=True)), NORMALISER_VERSION)

    @cached_property
    def key(self) -> str:
        """A SHA-256 of clips, texts and the normaliser's version, in hexadecimal; the clips' order does not matter."""
        content = json.dumps([self.normaliser_version, sorted(self.rows)])
        return hashlib.sha256(content.encode()).hexdigest()

    def facts(self) -> dict[str, str | int]:
        """The key and what it covers, as in a study's files."""
        counts = Counter(split for split, _, _ in self.rows)
        return {"key": self.key, "normaliser_version": self.normaliser_version} | {
            f"{name}_clips": counts[name] for name in SPLITS}

    def to_parquet(self) -> bytes:
        """A table of split, clip and text, with the normaliser's version in its metadata."""
        columns = {name: [row[i] for row in self.rows] for i, name in enumerate(("split", "clip", "text"))}
        schema = pa.schema([(name, pa.string()) for name in columns], metadata={_VERSION: self.normaliser_version})
        file = io.BytesIO()
        pq.write_table(pa.table(columns, schema=schema), file)
        return file.getvalue()

    @classmethod
    def load(cls, path: Path) -> "Reference":
        """Read what `to_parquet` wrote.

        Raises:
            CorpusError: there is no such file, or it is damaged.
        """
        try:
            table = pq.read_table(path)
            columns = [table[name].to_pylist() for name in ("split", "clip", "text")]
            version = table.schema.metadata[_VERSION.encode()].decode()
        except FileNotFoundError:
            raise CorpusError(f"{path}: there is no such reference. A study writes it with its features; name the "
                              "folder of a run.") from None
        except (pa.ArrowException, KeyError, TypeError, OSError) as error:
            raise CorpusError(f"{path}: the reference cannot be read ({' '.join(str(error).split())[:200]}). Restore "
                                 "the file from a copy.") from None
        return cls(tuple(zip(*columns, strict=True)), version)

    def differences(self, other: "Reference") -> str:
        """How another reference differs, in words; empty if it does not."""
        ours, theirs = Counter(row[:2] for row in self.rows), Counter(row[:2] for row in other.rows)
        num_apart = sum(((ours - theirs) + (theirs - ours)).values())
        num_changed = sum((Counter(self.rows) - Counter(other.rows)).values()) - sum((ours - theirs).values())
        said = [f"{num_apart} clips are in one alone" if num_apart else "",
                f"{num_changed} of {sum((ours & theirs).values())} shared clips have another text"
                if num_changed else "",
                f"the normaliser's version is {self.normaliser_version!r} and {other.normaliser_version!r}"
                if self.normaliser_version != other.normaliser_version else ""]
        return ", ".join(filter(None, said))
