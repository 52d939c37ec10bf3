"""Find speakers and sentences that two splits share: a model's results on training data say nothing about new speech.

Overlaps are looked for in the finished store, by comparing only texts and names of speakers. No trial imports this
file, and no figure of a trial depends on it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from corpora.features import FeatureSplit, FeatureStore
from corpora.manifest import SPLITS, CorpusError
from search.config import StudyConfig
from search.records.files import damage_named, read_json
from search.records.measured import Overlaps, read
from search.speech.evaluate_test import TEST
from search.wording import counted

NUM_EXAMPLES = 10
"""Examples of each kind in the report."""

NUM_NAMED = 3
"""Examples in a one-line message."""

_HASHED = re.compile(r"[0-9a-f]{64,128}")
"""Common Voice's `client_id`, which names the same person in every release. Other names are specific to their corpus.
"""

TRAIN = SPLITS[0]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """The overlap of an earlier and a later split."""

    splits: tuple[str, str]
    num_sentences: int
    """Distinct normalised texts that are in both."""
    num_speakers: int
    """Distinct known speakers that are in both."""
    clip_ids: list[str]
    """Every clip of the later split whose sentence or speaker is in the earlier one."""
    num_clips: int
    """Number of clips in the later split."""
    sentences: list[dict[str, str]]
    """The first sentences: text, and a clip of each split."""
    speakers: list[dict[str, str]]
    """The first speakers: name, and a clip of each split."""

    @property
    def is_of_test_in_train(self) -> bool:
        """Whether it makes test's figures optimistic."""
        return self.splits == (TRAIN, TEST) and bool(self.clip_ids)

    def said(self) -> str:
        """As in: 1 sentence and 0 speakers of dev are in train too (3 of 150 clips): 'sí', 'tres'."""
        first, second = self.splits
        named = [repr(shared["text"][:60]) for shared in self.sentences[:NUM_NAMED]]
        named += [f"speaker {shared['speaker'][:20]}" for shared in self.speakers[:NUM_NAMED]]
        return (f"{counted(self.num_sentences, 'sentence')} and {counted(self.num_speakers, 'speaker')} of {second} "
                f"are in {first} too ({len(self.clip_ids)} of {counted(self.num_clips, 'clip')}): {', '.join(named)}")


def find_overlaps(store: FeatureStore) -> list[Overlap]:
    """The overlaps between any two of train, dev and test."""
    splits = {name: store.split(name) for name in SPLITS}
    pairs = (_overlap((first, second), splits[first], splits[second]) for first, second in combinations(SPLITS, 2))
    return [overlap for overlap in pairs if overlap.clip_ids]


def unknown_speakers(split: FeatureSplit) -> int:
    """Clips of unknown speakers, whose overlap cannot be checked."""
    return sum(not speaker for speaker in split.speakers)


def speaker_names(split: FeatureSplit) -> list[str]:
    """Each clip's speaker, made unique by its corpus as the clip's id is; "" if unknown."""
    return [speaker if not speaker or _HASHED.fullmatch(speaker) else clip_id[: clip_id.find("/") + 1] + speaker
            for clip_id, speaker in zip(split.ids, split.speakers, strict=True)]


def overlap_report(overlaps: Sequence[Overlap], allowed: bool) -> dict[str, Any]:
    """The overlaps as in the corpus report and the summary, with printable lines."""
    return {"allowed": allowed, "pairs": [asdict(overlap) for overlap in overlaps],
            "said": [overlap.said() for overlap in overlaps]}


def kept_overlap(run: Path) -> Overlaps:
    """The overlaps in a run's corpus report, without the clips' names."""
    path = run / "corpus_report.json"
    known = dict(read_json(path)).get("overlap") if path.exists() else None
    if not known:
        return Overlaps()
    with damage_named(path):
        return read(Overlaps, known | {"pairs": [pair | {"num_shared_clips": len(pair["clip_ids"])}
                                                 for pair in known["pairs"]]})


def refuse_overlap(overlaps: Iterable[Overlap], config: StudyConfig, report: Path) -> None:
    """Stop a study whose test overlaps its training data; `report` is the file that names the clips.

    Raises:
        CorpusError: test and train share a speaker or a sentence, and it is not allowed.
    """
    for overlap in overlaps:
        if overlap.is_of_test_in_train and not config.allow_overlap:
            raise CorpusError(f"{', '.join(config.corpora) or 'the embedded default'}: {overlap.said()}. Test would "
                              f"flatter a model that was trained on them. Leave them out of test ({report} names its "
                              "clips) or of train, or continue with --allow-overlap, which the summary and the card "
                              "then say.")


def _overlap(names: tuple[str, str], first: FeatureSplit, second: FeatureSplit) -> Overlap:
    sentences = _shared(first, first.texts, second, second.texts)
    speakers_of_second = speaker_names(second)
    speakers = _shared(first, speaker_names(first), second, speakers_of_second)
    clip_ids = [clip_id for clip_id, text, speaker in zip(second.ids, second.texts, speakers_of_second, strict=True)
                if text in sentences or speaker in speakers]
    return Overlap(
        splits=names, num_sentences=len(sentences), num_speakers=len(speakers), clip_ids=clip_ids,
        num_clips=len(second), sentences=_examples("text", sentences, names), speakers=_examples("speaker", speakers,
                                                                                                 names))


def _shared(first: FeatureSplit, keys: Sequence[str], second: FeatureSplit,
            other_keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Values in both except "", with the first clip of each split that has it."""
    in_first = dict(zip(reversed(keys), reversed(first.ids), strict=True))
    in_second = dict(zip(reversed(other_keys), reversed(second.ids), strict=True))
    return {key: (in_first[key], in_second[key]) for key in dict.fromkeys(other_keys) if key and key in in_first}


def _examples(kind: str, shared: dict[str, tuple[str, str]], names: tuple[str, str]) -> list[dict[str, str]]:
    return [{kind: key} | dict(zip(names, clips, strict=True)) for key, clips in list(shared.items())[:NUM_EXAMPLES]]
