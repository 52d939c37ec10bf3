"""What a study sees of its corpora, before it costs anything."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

from corpora.corpus import SPLITS
from corpora.features import FeatureStore
from corpora.reference import Reference
from search.vocabularies import VocabularyReport

MAX_NAMED = 1000
"""Clips left out that the report names; all are in the store's bad_clips.jsonl."""


def corpus_report(store: FeatureStore, reports: Sequence[VocabularyReport]) -> dict[str, Any]:
    """What a study sees of its corpora: splits, the clips left out by reason and name, and each vocabulary."""
    facts = store.facts
    splits = {}
    for name in SPLITS:
        split = store.split(name)
        splits[name] = {"clips": len(split), "hours": round(split.duration_s / 3600, 4),
                        "speakers": len(set(split.speakers)),
                        "characters": "".join(sorted(set("".join(split.texts))))}
    bad = facts["bad_by_reason"]
    return {"splits": splits, "clips_found": facts["num_clips"], "clips_left_out": sum(bad.values()),
            "left_out_by_reason": bad, "left_out": list(islice(store.bad_clips(), MAX_NAMED)),
            "text": facts["text"], "reference": Reference.of(store).facts(),
            "vocabularies": [asdict(report) for report in reports], "features": str(store.folder)}
