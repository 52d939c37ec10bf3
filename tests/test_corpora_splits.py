"""Splits that files name are kept, and what names none is cut so that none of the given is touched."""

import json
import shutil
from pathlib import Path

import pytest

from corpora.corpus import Corpus, open_corpus
from corpora.manifest import CorpusError, ManifestError
from corpora.split_names import named_split
from corpora.splits import decide_splits, origins

pytestmark = pytest.mark.timeout(60)


def write(path: Path, num_speakers: int = 7, splits: tuple[str, ...] = ()) -> Path:
    """A manifest of three clips a speaker, the speakers its own; with `splits` its lines say one, in turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"audio_filepath": f"{path.parent.name}/{path.stem}/{i}.wav", "duration": 1, "text": f"frase {i}",
             "speaker": f"{path} {i // 3}"} for i in range(3 * num_speakers)]
    said = [row | ({"split": splits[i % len(splits)]} if splits else {}) for i, row in enumerate(rows)]
    path.write_text("\n".join(map(json.dumps, said)))
    return path


def decide(*paths: Path, given: tuple[str, ...] = ()) -> list[Corpus]:
    return decide_splits([open_corpus(path) for path in paths], given or [""] * len(paths))


def sizes(*paths: Path, given: tuple[str, ...] = ()) -> list[dict[str, int]]:
    return [{split: len(manifest) for split, manifest in corpus.splits.items()}
            for corpus in decide(*paths, given=given)]


@pytest.mark.parametrize(("name", "split"), [
    ("train_manifest", "train"), ("dev_manifest", "dev"), ("test_manifest", "test"), ("train", "train"),
    ("commonvoice_train_manifest", "train"), ("val", "dev"), ("es-valid", "dev"), ("validation_set", "dev"),
    ("TrainManifest", "train"), ("TEST", "test"), ("devset", "dev"), ("testmanifest", "test"), ("train960", "train"),
    ("test-clean", "test"), ("eval", "eval"), ("evaluation", "eval"), ("manifest", ""), ("validated", ""),
    ("latest", ""), ("contest", ""), ("trained", ""), ("es", ""), ("training_data", "train"), ("dev2", "dev"),
])
def test_name_says_a_split_as_a_word_of_its_own(name: str, split: str) -> None:
    assert named_split(name) == split


def test_given_splits_are_kept(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}_manifest.json") for name in ("train", "dev", "test")]
    assert sizes(*paths) == [{"train": 21}, {"dev": 21}, {"test": 21}]
    assert sizes(*reversed(paths)) == [{"test": 21}, {"dev": 21}, {"train": 21}]
    assert [(part["split"], Path(part["path"]).name, part["why"], part["utterances"])
            for part in origins(decide(*paths))] == [
        ("train", "train_manifest.json", "its name", 21), ("dev", "dev_manifest.json", "its name", 21),
        ("test", "test_manifest.json", "its name", 21)]


def test_a_person_names_any_and_is_believed(tmp_path: Path) -> None:
    paths = [write(tmp_path / name) for name in ("a.json", "b.json", "train.jsonl")]
    assert sizes(*paths, given=("train", "dev", "test")) == [{"train": 21}, {"dev": 21}, {"test": 21}]
    assert [part["why"] for part in origins(decide(*paths, given=("train", "dev", "test")))] == [
        "--train", "--dev", "--test"]


def test_eval_is_test_beside_a_dev_and_dev_elsewhere(tmp_path: Path) -> None:
    train, dev, test, evaluation = (write(tmp_path / f"{name}.jsonl") for name in ("train", "dev", "test", "eval"))
    assert sizes(train, dev, evaluation) == [{"train": 21}, {"dev": 21}, {"test": 21}]
    assert sizes(train, test, evaluation) == [{"train": 21}, {"test": 21}, {"dev": 21}]
    assert sizes(train, evaluation) == [{"train": 21}, {"dev": 21}]


def test_folder_says_it_where_the_names_are_the_same(tmp_path: Path) -> None:
    paths = [write(tmp_path / folder / "manifest.json") for folder in ("train", "dev", "test")]
    assert sizes(*paths) == [{"train": 21}, {"dev": 21}, {"test": 21}]
    alone = write(tmp_path / "test" / "all.json")
    assert list(sizes(alone)[0]) == ["train", "dev", "test"]


def test_lines_say_it(tmp_path: Path) -> None:
    assert sizes(write(tmp_path / "all.json", splits=("train", "validation", "test"))) == [
        {"train": 7, "dev": 7, "test": 7}]
    assert sizes(write(tmp_path / "all.json", splits=("train", "eval", "validation"))) == [
        {"train": 7, "dev": 7, "test": 7}]


def test_test_that_is_given_gets_nothing_and_what_lacks_is_cut_out_of_train(tmp_path: Path) -> None:
    train, test, more = (write(tmp_path / f"{name}.json") for name in ("train", "test", "more"))
    of_train, of_test = sizes(train, test)
    assert of_test == {"test": 21} and set(of_train) == {"train", "dev"} and sum(of_train.values()) == 21
    of_train, of_test, of_more = sizes(train, test, more)
    assert (of_train, of_test) == ({"train": 21}, {"test": 21})
    assert set(of_more) == {"train", "dev"} and sum(of_more.values()) == 21
    assert {part["why"] for part in origins(decide(train, test)) if part["split"] != "test"} == {
        "cut by speaker out of train: its name"}


def test_manifest_that_says_none_is_cut_alone_and_is_train_beside_a_dev(tmp_path: Path) -> None:
    more, dev = write(tmp_path / "more.json"), write(tmp_path / "dev.json")
    assert list(sizes(more)[0]) == ["train", "dev", "test"] == list(sizes(write(tmp_path / "train.json"))[0])
    assert sizes(more, dev) == [{"train": 21}, {"dev": 21}]


def test_what_cannot_be_decided_is_one_line_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"names dev and train.*--train, --dev or --test, or rename"):
        decide(write(tmp_path / "train_dev.json"))
    with pytest.raises(CorpusError, match=r"no train split \(test is of .*test\.json \(its name\)\).*--train"):
        decide(write(tmp_path / "test.json"))


def test_release_has_splits_of_its_own(shared_data: Path, tmp_path: Path) -> None:
    release, dev = shared_data / "cv-corpus-6.1-2020-12-11-es.tar.gz", write(tmp_path / "dev_manifest.json")
    of_release, of_dev = sizes(release, dev)
    assert set(of_release) == {"train", "dev", "test"} and of_dev == {"dev": 21}
    assert origins(decide(release))[0]["why"] == "the release's own"
    with pytest.raises(CorpusError, match="is not a manifest, and has splits of its own. Name it with --corpus"):
        decide(release, given=("test",))


def test_key_of_a_manifest_knows_its_split(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.json") for name in ("a", "b", "c")]
    first = [corpus.key for corpus in decide(*paths, given=("train", "dev", "test"))]
    assert first == [corpus.key for corpus in decide(*paths, given=("train", "dev", "test"))]
    assert first[0] == decide(*paths, given=("train", "test", "dev"))[0].key
    assert first[1] != decide(*paths, given=("train", "test", "dev"))[1].key


# --- a folder of manifests ------------------------------------------------------------------------------------------


def test_folder_stands_for_the_manifests_in_it(tmp_path: Path) -> None:
    """As NeMo's scripts leave it, other JSON beside them."""
    for name in ("train", "dev", "test"):
        write(tmp_path / "data" / f"{name}_manifest.json")
    (tmp_path / "data" / "stats.json").write_text('{"hours": 1}')
    (tmp_path / "data" / "._train_manifest.json").write_bytes(b"\0\5")
    (tmp_path / "data" / "wav").mkdir()
    assert sizes(tmp_path / "data") == [{"train": 21, "dev": 21, "test": 21}]
    assert [(part["split"], part["why"]) for part in origins(decide(tmp_path / "data"))] == [
        (name, f"{name}_manifest.json in it") for name in ("train", "dev", "test")]
    [corpus] = decide(tmp_path / "data")
    assert {utterance.audio for utterance in corpus.splits["dev"]} == {
        str(tmp_path / "data" / "data" / "dev_manifest" / f"{i}.wav") for i in range(21)}


def test_folder_of_folders_says_the_splits_by_their_names(tmp_path: Path) -> None:
    for name in ("train", "valid", "test"):
        write(tmp_path / name / "manifest.jsonl")
    assert sizes(tmp_path) == [{"train": 21, "dev": 21, "test": 21}]
    [corpus] = decide(tmp_path)
    assert len({utterance.id for split in corpus.splits.values() for utterance in split}) == 63


def test_folder_without_a_dev_has_one_cut_out_of_train_alone(tmp_path: Path) -> None:
    write(tmp_path / "train.json", num_speakers=20)
    test = write(tmp_path / "test.json")
    [corpus] = decide(tmp_path)
    assert set(corpus.splits) == {"train", "dev", "test"} and len(corpus.splits["test"]) == 21
    assert all(f"/{test.stem}/" in utterance.audio for utterance in corpus.splits["test"])


def test_key_of_a_folder_is_that_of_a_copy_and_of_no_other(tmp_path: Path) -> None:
    write(tmp_path / "a" / "train.json"), write(tmp_path / "a" / "dev.json")
    before = decide(tmp_path / "a")[0].key
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert decide(tmp_path / "b")[0].key == before
    (tmp_path / "b" / "dev.json").rename(tmp_path / "b" / "test.json")
    assert decide(tmp_path / "b")[0].key != before


def test_list_of_all_in_the_folder_takes_nothing_from_dev_and_test(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        write(tmp_path / f"{name}.json")
    (tmp_path / "all.json").write_text("\n".join((tmp_path / f"{name}.json").read_text()
                                                 for name in ("train", "dev", "test")))
    [corpus] = decide(tmp_path)
    for utterances in corpus.splits.values():
        for utterance in utterances:
            Path(utterance.audio).parent.mkdir(parents=True, exist_ok=True)
            Path(utterance.audio).write_bytes(b"RIFF")
    used = [(split, utterance.audio) for split, utterance, clip in corpus.clips(("train", "dev", "test"))
            if isinstance(clip, Path)]
    assert len(used) == 63 and all(f"/{split}/" in audio for split, audio in used)
