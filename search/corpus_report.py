"""What a study sees of its corpora, before it costs anything, as data; `search/corpus_tables.py` shows it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np

from corpora.features import FRAMES_PER_S, FeatureSplit, FeatureStore
from corpora.manifest import SPLITS
from search.config import StudyConfig
from search.overlap import Overlap, overlap_report, speaker_names, unknown_speakers
from search.vocabularies import VocabularyReport

QUANTILES = {"shortest": 0.0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "longest": 1.0}

MAX_NAMED = 1000
"""Clips left out that the report names; all are in the store's bad_clips.jsonl."""

MOST_BINS = 12
"""Of the histogram of clip lengths."""

BIN_WIDTHS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)
"""The narrowest that needs no more bins is taken."""


def corpus_report(config: StudyConfig, store: FeatureStore, vocabularies: Sequence[VocabularyReport],
                  overlaps: Sequence[Overlap]) -> dict[str, Any]:
    """What a study sees of its corpora: splits, lengths, characters, words, vocabularies, what splits share, and the
    clips left out by reason and name."""
    facts, splits = store.facts, {name: store.split(name) for name in SPLITS}
    bad = facts["bad_by_reason"]
    return {
        "corpus": list(config.corpora) or ["embedded default"],
        "language": config.spoken.code,
        "splits": {name: _split(split) for name, split in splits.items()},
        "lengths": _histogram(splits),
        "characters": characters({name: split.texts for name, split in splits.items()},
                                 config.spoken.alphabet, store.bad_clips()),
        "words": words(splits["train"].texts, splits["dev"].texts),
        "text": facts["text"],
        "vocabularies": [asdict(report) | {"is_usable": is_usable(report, config)} for report in vocabularies],
        "overlap": overlap_report(overlaps, config.allow_overlap),
        "clips_found": facts["num_clips"], "clips_left_out": sum(bad.values()), "left_out_by_reason": bad,
        "left_out": list(islice(store.bad_clips(), MAX_NAMED)),
        "features": str(store.folder),
    }


def origin_lines(origins: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where each split comes from, a line each."""
    return [f"{split}: " + "; ".join(f"{part['utterances']:,} of {part['path']} ({part['why']})" for part in parts)
            for split in SPLITS if (parts := [part for part in origins if part["split"] == split])]


def is_usable(report: VocabularyReport, config: StudyConfig) -> bool:
    """Whether a study trains with this vocabulary."""
    return report.error is None and report.infeasible_share <= config.max_infeasible_share


def _split(split: FeatureSplit) -> dict[str, Any]:
    """Sizes of a split; quantiles of its clips' lengths in seconds."""
    seconds = split.num_frames / FRAMES_PER_S
    return {"clips": len(split), "hours": round(split.duration_s / 3600, 4),
            "speakers": len(set(filter(None, speaker_names(split)))),
            "clips_of_unknown_speakers": unknown_speakers(split), "sentences": len(set(split.texts)),
            "length_s": {name: round(float(np.quantile(seconds, share)), 2) for name, share in QUANTILES.items()}
            if len(split) else {}}


def _histogram(splits: Mapping[str, FeatureSplit]) -> dict[str, Any]:
    """Clips of each split by length: bins of equal width from 0 s on."""
    longest = max((int(split.num_frames.max()) for split in splits.values() if len(split)), default=0) / FRAMES_PER_S
    width = next((width for width in BIN_WIDTHS_S if longest < width * MOST_BINS), BIN_WIDTHS_S[-1])
    num_bins = int(longest / width) + 1
    return {"bin_s": width, "clips": {
        name: np.bincount((split.num_frames / FRAMES_PER_S / width).astype(int), minlength=num_bins).tolist()
        for name, split in splits.items()}}


def characters(texts: Mapping[str, Sequence[str]], alphabet: str, bad: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    """How often each character of the normalised texts is written, and which trouble a vocabulary.

    `not_in_alphabet` is of the texts that are used, `left_out` of the clips that are not, for a letter that the
    language cannot spell; `not_in_train` are written in dev or test alone, `never` in no text at all.
    """
    counts = {split: Counter("".join(lines)) for split, lines in texts.items()}
    in_all = sum(counts.values(), Counter[str]())
    foreign = Counter(letter for row in bad if row["reason"] == "foreign_letters"
                      for letter in row["detail"].rpartition(" holds ")[2].partition(", which")[0].strip("'\""))
    return {"counts": dict(in_all.most_common()),
            "not_in_alphabet": {char: count for char, count in in_all.most_common() if char not in alphabet},
            "left_out": dict(foreign.most_common()),
            "not_in_train": {char: count for char, count in in_all.most_common() if char not in counts["train"]},
            "never": "".join(char for char in alphabet if char not in in_all)}


def words(train: Sequence[str], dev: Sequence[str]) -> dict[str, Any]:
    """Distinct words of train, and the share of dev's words that train never says."""
    known = {word for text in train for word in text.split()}
    said = Counter(word for text in dev for word in text.split())
    unseen = sum(count for word, count in said.items() if word not in known)
    return {"in_train": len(known), "dev_unseen_share": round(unseen / max(1, said.total()), 4)}
