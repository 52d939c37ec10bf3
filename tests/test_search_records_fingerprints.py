"""A study is what it is made of: content counts, not where a file lies or when it was touched."""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import pytest

import spaces
from models.frontend import FrontendConfig
from models.nemo import write_nemo
from models.quartznet import AcousticModel, named_network
from models.vocabulary import CharacterVocabulary
from search.config import ConfigError, StudyConfig
from search.records.fingerprints import NO_SPACES, Identity, space_key
from search.speech import embedded_study
from search.speech.study_inputs import identify, open_inputs

pytestmark = pytest.mark.timeout(60)

MADE_OF = Identity(corpus=("c0" * 32, "c1" * 32), source="50" * 32, space="5a" * 32, features="1.1")
CONFIG = StudyConfig(corpus=("/data/a.tar.gz", "/data/b.jsonl"), source="/data/en.nemo", space="spanish")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A corpus of three speakers and a source."""
    folder = tmp_path / "data"
    (folder / "clips").mkdir(parents=True)
    rows = [{"audio_filepath": f"clips/{n}.wav", "text": "hola", "speaker": f"s{n}"} for n in range(3)]
    for row in rows:
        (folder / row["audio_filepath"]).write_bytes(b"sound")
    (folder / "es.jsonl").write_text("\n".join(map(json.dumps, rows)))
    network = named_network("narrow")
    letters = CharacterVocabulary(tuple(" abc"))
    write_nemo(folder / "en.nemo", FrontendConfig(), network, letters, AcousticModel(network, 5).state_dict())
    return folder


def identity(data: Path) -> Identity:
    config = StudyConfig(corpus=(str(data / "es.jsonl"),), source=str(data / "en.nemo")).resolved()
    return identify(config, open_inputs(config))


def test_copied_and_touched_files_are_the_same_study(data: Path, tmp_path: Path) -> None:
    before = identity(data)
    shutil.copytree(data, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*"):
        os.utime(path, (0, 0))
    assert identity(tmp_path / "copy") == before == identity(data)


@pytest.mark.parametrize(("name", "changed"), [("es.jsonl", "corpus"), ("clips/1.wav", "corpus"),
                                               ("en.nemo", "source")])
def test_changed_content_is_another_study_by_that_alone(data: Path, name: str, changed: str) -> None:
    before = identity(data)
    with (data / name).open("ab") as file:
        file.write(bytes(10_240) if name.endswith(".nemo") else b"\n")  # a tar may end in more zeros
    after = identity(data)
    different = {field.name for field in dataclasses.fields(Identity)
                 if getattr(before, field.name) != getattr(after, field.name)}
    assert different == {changed}


def test_manifest_that_becomes_another_split_is_another_study(data: Path) -> None:
    for name in ("a", "b"):
        (data / f"{name}.jsonl").write_text((data / "es.jsonl").read_text())
    one, other = ({"train": (str(data / "es.jsonl"),), "dev": (str(data / f"{dev}.jsonl"),),
                   "test": (str(data / f"{test}.jsonl"),)} for dev, test in ("ab", "ba"))
    first, second = (StudyConfig(**named, source="none").resolved() for named in (one, other))
    before = identify(first, open_inputs(first))
    assert identify(second, open_inputs(second)) == before, "the same content, whatever its name"
    for path in (*one["train"], *one["dev"]):
        Path(path).rename(Path(path).with_name(f"moved-{Path(path).name}"))
    moved = StudyConfig(train=(str(data / "moved-a.jsonl"),), dev=(str(data / "moved-es.jsonl"),),
                        test=one["test"], source="none").resolved()
    assert identify(moved, open_inputs(moved)) == before
    pooled = StudyConfig(corpus=(str(data / "moved-a.jsonl"),), dev=(str(data / "moved-es.jsonl"),),
                         test=one["test"], source="none").resolved()
    assert identify(pooled, open_inputs(pooled)) == before, "it is train beside a dev"
    cut = StudyConfig(corpus=(str(data / "moved-a.jsonl"),), source="none").resolved()
    told = StudyConfig(dev=(str(data / "moved-a.jsonl"),), train=one["test"], source="none").resolved()
    assert identify(cut, open_inputs(cut)).corpus[0] not in identify(told, open_inputs(told)).corpus


def test_changed_letters_are_another_study(data: Path) -> None:
    config = StudyConfig(corpus=(str(data / "es.jsonl"),), source=str(data / "en.nemo")).resolved()
    fewer = dataclasses.replace(config, language=dataclasses.replace(config.spoken, letters="abc", num2words=""))
    before, after = identity(data), identify(fewer, open_inputs(fewer))
    assert before.language != after.language and dataclasses.replace(after, language=before.language) == before


def test_random_weights_are_no_source(data: Path) -> None:
    config = StudyConfig(corpus=(str(data / "es.jsonl"),), source="none").resolved()
    assert identify(config, open_inputs(config)).source == ""


def test_source_of_the_embedded_study_keeps_its_key_when_recipes_get_new_fields() -> None:
    """Otherwise studies from before cannot be resumed; a new field belongs in LATER_FIELDS."""
    assert embedded_study.source_key() == "c476f9eb1279809b1f772ed94616f4fe5da571332c9c293712772ba852531d78"


def test_embedded_study_is_made_of_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    config = StudyConfig().resolved()
    before = identify(config, None)
    assert identify(config, None) == before
    monkeypatch.setattr(embedded_study, "NUM_UTTERANCES", embedded_study.NUM_UTTERANCES | {"es": {"train": 10}})
    assert identify(config, None).corpus != before.corpus
    monkeypatch.setattr(embedded_study, "PRETRAINING", dataclasses.replace(embedded_study.PRETRAINING, network="5x5"))
    assert identify(config, None).source != before.source
    assert identify(dataclasses.replace(config, space="spanish"), None).space != before.space


def test_space_is_its_module_and_the_spaces_it_imports(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from spaces import theirs\nfrom spaces.recipe import Recipe\n")
    (tmp_path / "theirs.py").write_text("LR = 1\n")
    (tmp_path / "other.py").write_text("LR = 1\n")
    (tmp_path / "recipe.py").write_text("")
    keys = [space_key(tmp_path / "mine.py")]
    for name in ("other.py", "recipe.py", "theirs.py", "mine.py"):
        with (tmp_path / name).open("a") as file:
            file.write("LR = 2\n")
        keys.append(space_key(tmp_path / "mine.py"))
    assert keys[0] == keys[1] == keys[2] and len(set(keys[2:])) == 3


def test_what_spaces_are_built_with_is_no_space_and_no_part_of_one() -> None:
    folder = Path(str(spaces.__file__)).parent
    assert {path.stem for path in folder.glob("*.py")} == {"__init__", "spanish", "synthetic"} | NO_SPACES


# --- kept and compared -----------------------------------------------------------------------------------------------


def test_identity_is_read_back_equal(tmp_path: Path) -> None:
    MADE_OF.save(tmp_path / "made_of.json")
    assert Identity.load(tmp_path / "made_of.json") == MADE_OF
    MADE_OF.check_same(MADE_OF, CONFIG, tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"corpus": []}', '{"corpora": []}'])
def test_damaged_identity_is_refused_by_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "made_of.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=re.escape(str(file)) + ": what the study is made of .*Restore.*--out"):
        Identity.load(file)


@pytest.mark.parametrize(("changes", "messages"), [
    ({"corpus": ("c0" * 32, "cc" * 32)}, ["corpus /data/b.jsonl has changed in content (key c1c1c1c1c1c1 at the "
                                          "study's start, cccccccccccc now)"]),
    ({"corpus": ("c0" * 32,)}, ["corpus was 2 at the study's start, and is 1 now"]),
    ({"source": ""}, ["source /data/en.nemo has changed in content (key 505050505050 at", "none now"]),
    ({"space": "5b"}, ["space spanish (spaces/spanish.py or one it imports) has changed in content"]),
    ({"language": "1a"}, ["language es has changed in content (key none at the study's start, 1a now)"]),
    ({"features": "1.2"}, ["what Cuarzo makes of a clip has changed"]),
    ({"corpus": ("c0" * 32, "cc" * 32), "source": "51"}, ["corpus /data/b.jsonl has", "; source /data/en.nemo has"]),
])
def test_each_change_is_named(tmp_path: Path, changes: dict[str, str], messages: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        MADE_OF.check_same(dataclasses.replace(MADE_OF, **changes), CONFIG, tmp_path)  # type: ignore[arg-type]
    assert all(message in str(caught.value) for message in (str(tmp_path), "--out", *messages)), caught.value
