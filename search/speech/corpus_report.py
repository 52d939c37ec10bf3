"""The report on a study's corpora before anything is spent, as data; `command_line/corpus_tables.py` prints it."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np

from corpora.features import FRAMES_PER_S, FeatureSplit, FeatureStore
from corpora.languages import Language
from corpora.manifest import SPLITS
from corpora.text import FOLDED
from search.config import StudyConfig
from search.speech.split_overlap import Overlap, overlap_report, speaker_names, unknown_speakers
from search.speech.vocabularies import VocabularyReport

QUANTILES = {"shortest": 0.0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "longest": 1.0}

MAX_NAMED = 1000
"""Most left-out clips named in the report; all are in the store's bad_clips.jsonl."""

MAX_BINS = 12
"""Most bins in the histogram of clip lengths."""

BIN_WIDTHS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)
"""Possible bin widths; the narrowest that fits is used."""

MAX_FOLDED = 0.001
"""Share of a text's letters; real Spanish and English fold a tenth as many, in names."""
LEAST_ACCENTED = 0.0003
"""Share of a text's letters; the lowest of the known languages, Italian, has 0.01."""
LEAST_LETTERS = 2000
"""With fewer letters, missing accents are not reported."""
MAX_LEFT_OUT = 0.05
"""Share of a corpus's clips left out for letters that the language does not have."""
MAX_NAMED_LETTERS = 12
"""Letters named in the line about a language that does not fit."""
LEAST_COUNTED = 3
"""Letters or clips; fewer may come from a name."""


def corpus_report(config: StudyConfig, store: FeatureStore, vocabularies: Sequence[VocabularyReport],
                  overlaps: Sequence[Overlap]) -> dict[str, Any]:
    """The report on a study's corpora: splits, lengths, characters, words, vocabularies, overlaps of splits, and clips
    left out by reason and name."""
    facts, splits = store.facts, {name: store.split(name) for name in SPLITS}
    bad = facts["bad_by_reason"]
    return {
        "corpus": list(config.corpora) or ["embedded default"],
        "language": config.spoken.code,
        "splits": {name: _split(split) for name, split in splits.items()},
        "lengths": _histogram(splits),
        "characters": _characters(store, config.spoken),
        "words": words(splits["train"].texts, splits["dev"].texts),
        "text": facts["text"],
        "vocabularies": [asdict(report) | {"is_usable": is_usable(report, config)} for report in vocabularies],
        "overlap": overlap_report(overlaps, config.allow_overlap),
        "clips_found": facts["num_clips"], "clips_left_out": sum(bad.values()), "left_out_by_reason": bad,
        "left_out": list(islice(store.bad_clips(), MAX_NAMED)),
        "features": str(store.folder),
    }


def _characters(store: FeatureStore, language: Language) -> dict[str, Any]:
    return characters({name: store.split(name).texts for name in SPLITS}, language.alphabet, store.bad_clips())


def find_misfit(store: FeatureStore, language: Language) -> str:
    """Why the language may not be that of the corpus, in one line; empty if nothing suggests so."""
    facts = store.facts
    folded = facts["text"]["changes"].get(FOLDED, {"found": {}})["found"]
    share_left_out = facts["bad_by_reason"].get("foreign_letters", 0) / max(1, facts["num_clips"])
    return misfit(language, _characters(store, language), folded, share_left_out)


def misfit(language: Language, characters: Mapping[str, Any], folded: Mapping[str, int],
           share_left_out: float) -> str:
    """The text of `find_misfit` for these counts.

    `folded` counts folded letters, as `ã→a`; letters spelled out in several (œ→oe) lose nothing.
    """
    counts: Mapping[str, int] = characters["counts"]
    num_letters = sum(count for char, count in counts.items() if char != " ")
    said = []
    lost = {name: count for name, count in folded.items() if len(name.partition("→")[2]) == 1}
    if (num_lost := sum(lost.values())) >= LEAST_COUNTED and num_lost > MAX_FOLDED * num_letters:
        said.append(f"{num_lost:,} of its {num_letters:,} letters are not in the alphabet and were folded "
                    f"({listed(lost, MAX_NAMED_LETTERS)})")
    accented = [char for char in language.letters if len(unicodedata.normalize("NFD", char)) > 1]
    num_accented = sum(counts.get(char, 0) for char in accented)
    if accented and num_letters >= LEAST_LETTERS and num_accented < LEAST_ACCENTED * num_letters:
        said.append(f"{num_accented or 'none'} of its {num_letters:,} letters "
                    f"{'is' if num_accented < 2 else 'are'} one of {' '.join(accented[:MAX_NAMED_LETTERS])}")
    foreign: Mapping[str, int] = characters["left_out"]
    if sum(foreign.values()) >= LEAST_COUNTED and share_left_out > MAX_LEFT_OUT:
        said.append(f"{share_left_out:.0%} of its clips are left out for letters that are not in the alphabet "
                    f"({listed(foreign, MAX_NAMED_LETTERS)})")
    return (f"the corpus may not be in {language.code!r}: {'; '.join(said)}. Name its language, or a file that "
            "describes it, with --language.") if said else ""


def listed(counts: Mapping[str, int], most: int | None = None) -> str:
    """Characters and their counts, in words, most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{_shown(name)} {count:,}" for name, count in ranked[:most]) + (
        f" and {len(ranked) - most} more" if most and len(ranked) > most else "")


def _shown(name: str) -> str:
    if name == " ":
        return "space"
    return name if name.isprintable() else "".join(f"U+{ord(char):04X}" for char in name)
def origin_lines(origins: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where each split comes from, one line each."""
    return [f"{split}: " + "; ".join(f"{part['utterances']:,} of {part['path']} ({part['why']})" for part in parts)
            for split in SPLITS if (parts := [part for part in origins if part["split"] == split])]


def is_usable(report: VocabularyReport, config: StudyConfig) -> bool:
    """Whether a study trains with this vocabulary."""
    return report.error is None and report.infeasible_share <= config.max_infeasible_share


def _split(split: FeatureSplit) -> dict[str, Any]:
    """Size of a split, and quantiles of its clip lengths in seconds."""
    seconds = split.num_frames / FRAMES_PER_S
    return {"clips": len(split), "hours": round(split.duration_s / 3600, 4),
            "speakers": len(set(filter(None, speaker_names(split)))),
            "clips_of_unknown_speakers": unknown_speakers(split), "sentences": len(set(split.texts)),
            "length_s": {name: round(float(np.quantile(seconds, share)), 2) for name, share in QUANTILES.items()}
            if len(split) else {}}


def _histogram(splits: Mapping[str, FeatureSplit]) -> dict[str, Any]:
    """Clips of each split by length, in bins of equal width from 0 s."""
    longest = max((int(split.num_frames.max()) for split in splits.values() if len(split)), default=0) / FRAMES_PER_S
    width = next((width for width in BIN_WIDTHS_S if longest < width * MAX_BINS), BIN_WIDTHS_S[-1])
    num_bins = int(longest / width) + 1
    return {"bin_s": width, "clips": {
        name: np.bincount((split.num_frames / FRAMES_PER_S / width).astype(int), minlength=num_bins).tolist()
        for name, split in splits.items()}}


def characters(texts: Mapping[str, Sequence[str]], alphabet: str, bad: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    """Counts of each character in the normalised texts, and the characters that cause problems for a vocabulary.

    `not_in_alphabet` covers the texts that are used, `left_out` the clips left out for a letter that the language
    cannot spell; `not_in_train` occur only in dev or test, `never` in no text at all.
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
    """Distinct words of train, and the share of dev's words that do not occur in train."""
    known = {word for text in train for word in text.split()}
    said = Counter(word for text in dev for word in text.split())
    unseen = sum(count for word, count in said.items() if word not in known)
    return {"in_train": len(known), "dev_unseen_share": round(unseen / max(1, said.total()), 4)}
