"""Train every vocabulary of a space, in Ray tasks and only on the training text, and report how each fits."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import ray

from corpora.features import FeatureStore
from files.atomic import write_shared
from models.vocabulary import (
    VocabularyError,
    is_feasible,
    train_vocabulary,
    vocabulary_path,
    vocabulary_to_bytes,
)
from search.cluster import check_shared
from spaces.recipe import VocabularyRecipe


@dataclass(frozen=True, kw_only=True)
class VocabularyReport:
    """Whether a vocabulary can be used on this corpus, known before any trial."""

    kind: str
    size: int
    """As in the recipe; 0 for characters."""
    num_labels: int
    infeasible_share: float
    """Share of the training clips that CTC cannot align."""
    mean_labels: float
    """Labels of a training clip."""
    unknown_share: float
    """Share of the development split's characters, without spaces, that it cannot spell."""
    error: str | None
    """Why it could not be made."""


def prepare_vocabularies(store: FeatureStore, recipes: Sequence[VocabularyRecipe], alphabet: str,
                         stride: int) -> tuple[Path, dict[VocabularyRecipe, VocabularyReport]]:
    """Train every vocabulary of a space on the training text only, as Ray tasks; stored next to the features.

    Returns the folder of the vocabularies, and a report on each with an encoder of this stride.
    """
    folder = store.folder / f"vocabularies-{stride}"
    folder.mkdir(exist_ok=True)
    tasks = [_make_vocabulary.remote(store.folder, recipe, alphabet, stride, folder) for recipe in recipes]
    return folder, dict(zip(recipes, ray.get(tasks), strict=True))


@ray.remote(num_cpus=1)
def _make_vocabulary(store_folder: Path, recipe: VocabularyRecipe, alphabet: str, stride: int,
                     folder: Path) -> VocabularyReport:
    check_shared(folder)
    path = vocabulary_path(folder, recipe)
    report = path.with_suffix(".report.json")
    known = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    if known.keys() == {f.name for f in fields(VocabularyReport)}:  # an earlier version reported less
        return VocabularyReport(**known)
    result = _train_and_check(FeatureStore(store_folder), recipe, alphabet, stride, path)
    write_shared(report, lambda file: file.write(json.dumps(asdict(result)).encode()))
    return result


def _train_and_check(store: FeatureStore, recipe: VocabularyRecipe, alphabet: str, stride: int,
                     path: Path) -> VocabularyReport:
    train = store.split("train")
    try:
        vocabulary = train_vocabulary(recipe, train.texts, alphabet)
    except VocabularyError as error:
        return VocabularyReport(kind=recipe.kind, size=recipe.size, num_labels=0, infeasible_share=1.0,
                                mean_labels=0.0, unknown_share=1.0, error=str(error))
    write_shared(path, lambda file: file.write(vocabulary_to_bytes(vocabulary)))
    num_infeasible = num_labels = 0
    for text, frames in zip(train.texts, train.num_frames, strict=True):
        label_ids = vocabulary.encode(text)
        num_labels += len(label_ids)
        num_infeasible += not is_feasible(label_ids, (int(frames) - 1) // stride + 1)
    characters = Counter("".join(store.split("dev").texts).replace(" ", ""))
    num_unknown = sum(count for character, count in characters.items() if not vocabulary.encode(character))
    num_clips = max(1, len(train))
    return VocabularyReport(kind=recipe.kind, size=recipe.size, num_labels=vocabulary.size,
                            infeasible_share=num_infeasible / num_clips, mean_labels=num_labels / num_clips,
                            unknown_share=num_unknown / max(1, characters.total()), error=None)
