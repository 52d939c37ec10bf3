"""Decide which split each manifest is, and what is held out if none is given for it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from corpora.corpus import Corpus
from corpora.manifest import SPLITS, CorpusError, Manifest
from corpora.split_names import EVAL, named_split


def decide_splits(corpora: Sequence[Corpus], given: Sequence[str]) -> list[Corpus]:
    """The corpora with their splits decided, and what decided them.

    `given` holds the split that the user named for each corpus, "" if none. A manifest's split comes from the user, its
    lines (`split`), its name, or its folder's name if another manifest has its name. `eval` means test if there is a
    dev, otherwise dev. A manifest without any of these is train if there is a dev; otherwise it is split by speaker,
    into the splits that no other corpus provides. If all manifests have a split and none is dev, dev is cut out of
    those of train, and so is a missing test.

    Raises:
        CorpusError: there is no split to train or to tune on, or a name contains two splits.
    """
    parts = [_said(corpus, split, corpora) for corpus, split in zip(corpora, given, strict=True)]
    eval_is = "test" if any("dev" in part for part in parts) else "dev"
    parts = [_with_eval(part, eval_is) for part in parts]
    known = {split for part in parts for split in part}
    held_out = () if "dev" in known else tuple(split for split in ("dev", "test") if split not in known)
    if held_out and "" not in known:
        parts = [_opened_up(corpus, part) for corpus, part in zip(corpora, parts, strict=True)]
    decided = [_decided(corpus, part, held_out) for corpus, part in zip(corpora, parts, strict=True)]
    for split in ("train", "dev"):
        if not any(split in corpus.splits for corpus in decided):
            paths = ", ".join(str(corpus.path) for corpus in corpora)
            found = "; ".join(f"{part['split']} is of {part['path']} ({part['why']})" for part in origins(decided))
            raise CorpusError(f"{paths}: no {split} split{f' ({found})' if found else ''}. Add a corpus that has one, "
                              f"name a manifest with --{split}, or give a manifest of at least three speakers, which "
                              "is then split by speaker.")
    return decided


def origins(corpora: Sequence[Corpus]) -> list[dict[str, Any]]:
    """The origin of each part of each split, as plain values: `split`, `path`, `why` and `utterances`."""
    return [{"split": split, "path": str(corpus.path), "why": corpus.origins.get(split, "the release's own"),
             "utterances": len(corpus.splits[split])}
            for split in SPLITS for corpus in corpora if split in corpus.splits]


Part = dict[str, tuple[Manifest, str]]
"""A corpus's utterances by split, "" if undecided, and what decided it."""


def _said(corpus: Corpus, given: str, corpora: Sequence[Corpus]) -> Part:
    if corpus.kind != "manifest":
        if given:
            raise CorpusError(f"{corpus.path}: is not a manifest, and has splits of its own. Name it with --corpus; "
                              f"--{given} takes a NeMo manifest (.jsonl, .json).")
        return {split: (manifest, "the release's own") for split, manifest in corpus.splits.items()}
    whole = corpus.splits[""]
    if given:
        return {given: (whole, f"--{given}")}
    if any(utterance.split for utterance in whole):
        by_line = {name: Manifest(utterance for utterance in whole if _split_of_line(utterance.split) == name)
                   for name in (*SPLITS, EVAL, "")}
        return {name: (manifest, corpus.origins.get(name, "its lines" if name else ""))
                for name, manifest in by_line.items() if manifest}
    path = Path(corpus.path)
    if split := named_split(path.name.partition(".")[0]):
        return {split: (whole, "its name")}
    has_twin = any(other is not corpus and os.path.basename(other.path) == path.name for other in corpora)
    split = named_split(path.parent.name) if has_twin else ""
    return {split: (whole, "its folder's name" if split else "")}


def _split_of_line(said: str) -> str:
    return named_split(said) if said else ""


def _with_eval(part: Part, eval_is: str) -> Part:
    rest = {split: found for split, found in part.items() if split != EVAL}
    return _add(rest, eval_is, *part[EVAL]) if EVAL in part else rest


def _add(part: Part, split: str, manifest: Manifest, why: str) -> Part:
    before, also = part.get(split, (Manifest(), ""))
    return part | {split: (Manifest([*before, *manifest]) if before else manifest,
                           f"{also}, {why}" if also and also != why else why)}


def _opened_up(corpus: Corpus, part: Part) -> Part:
    """A manifest with its train marked as divisible."""
    if corpus.kind != "manifest":
        return part
    return {"" if split == "train" else split: (manifest, f" out of train: {why}" if split == "train" else why)
            for split, (manifest, why) in part.items()}


def _decided(corpus: Corpus, part: Part, held_out: Sequence[str]) -> Corpus:
    decided: Part = {split: found for split, found in part.items() if split}
    if "" in part:
        whole, why = part[""]
        cut = whole.split_by_speaker(held_out) if held_out else {"train": whole}
        why = f"cut by speaker{why}" if held_out else "says no split, and there is a dev"
        for split, manifest in cut.items():
            decided = _add(decided, split, manifest, why)
    return replace(corpus, splits={split: decided[split][0] for split in SPLITS if split in decided},
                   origins={split: why for split, (_, why) in decided.items()})
