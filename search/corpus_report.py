"""What a study sees of its corpora, before it costs anything."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from corpora.corpus import SPLITS
from corpora.features import FeatureStore
from corpora.reference import Reference
from search.vocabularies import VocabularyReport


def corpus_report(store: FeatureStore, reports: Sequence[VocabularyReport]) -> dict[str, Any]:
    """What a study sees of its corpora: splits, the clips left out by reason and name, and each vocabulary."""
    facts = store.facts
    splits = {}
    for name in SPLITS:
        split = store.split(name)
        splits[name] = {"clips": len(split), "hours": round(split.duration_s / 3600, 4),
                        "speakers": len(set(split.speakers)),
                        "characters": "".join(sorted(set("".join(split.texts))))}
    bad = facts["bad_clips"]
    return {"splits": splits, "clips_found": facts["num_clips"], "clips_left_out": len(bad),
            "left_out_by_reason": dict(Counter(row["reason"] for row in bad)), "left_out": bad,
            "text": facts["text"], "reference": Reference.of(store).facts(),
            "vocabularies": [asdict(report) for report in reports], "features": str(store.folder)}
