"""A name that there is not is answered by what a person meant, and by nothing where nobody can tell."""

from pathlib import Path

import pytest

from corpora.languages import LanguageError, language
from search.config import ConfigError, StudyConfig
from search.speech.catalog import is_name
from search.speech.study_inputs import open_inputs
from spaces.did_you_mean import SYNONYMS, meant
from spaces.recipe import OptimizerRecipe, Recipe, RecipeError

pytestmark = pytest.mark.timeout(30)


@pytest.mark.parametrize(("values", "nearest"), [
    ({"learning_rate": 1}, "optimizer.lr"), ({"optimizer": {"learning_rate": 1}}, "optimizer.lr"),
    ({"optimizer": {"LR": 1}}, "optimizer.lr"), ({"training": {"lr": 1}}, "optimizer.lr"),
    ({"optimizer.lr": 1}, "optimizer.lr"), ({"optimiser": {}}, "optimizer"),
    ({"batch_size": 1}, "training.audio_s_per_step"), ({"schedule": {"warmup-steps": 1}}, "schedule.warmup_share"),
    ({"training": {"droput": 1}}, "training.dropout"), ({"vocabulary": {"vocab_size": 1}}, "vocabulary.size")])
def test_field_of_a_recipe_is_found_by_its_other_names_and_in_other_sections(values: dict[str, object],
                                                                             nearest: str) -> None:
    with pytest.raises(RecipeError, match=f"there is no such field; the nearest is {nearest}[.]$"):
        Recipe.from_dict(values)


def test_field_of_a_recipe_is_found_from_python_too() -> None:
    with pytest.raises(RecipeError, match=r"^learning_rate: there is no such field; the nearest is optimizer.lr\.$"):
        Recipe(learning_rate=1)  # type: ignore[call-arg]
    with pytest.raises(RecipeError, match=r"^learning_rate: there is no such field; the nearest is lr\.$"):
        OptimizerRecipe(learning_rate=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("values", [{"optimizer": {"colour": 1}}, {"colour": 1}])
def test_where_none_is_near_the_fields_are_listed(values: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="there is no such field; there are (optimizer.name|network), "):
        Recipe.from_dict(values)


@pytest.mark.parametrize(("name", "nearest"), [
    ("spanish", "es"), ("Español", "es"), ("es-MX", "es"), ("pt_BR", "pt"), ("FR", "fr"), ("portugese", "pt"),
    ("gl", None), ("german", None), ("e", None)])
def test_language_is_found_by_its_name_and_with_its_country(name: str, nearest: str | None) -> None:
    with pytest.raises(LanguageError) as caught:
        language(name)
    assert (f"; the nearest is {nearest}." in str(caught.value)) == (nearest is not None), caught.value
    assert ("nearest" in str(caught.value)) == (nearest is not None)


def test_source_and_corpus_are_found_by_half_their_names(tmp_path: Path) -> None:
    for given, said in (("quartznet15x5", "; the nearest is stt_en_quartznet15x5."), ("es.nemo", ". Name a"),
                        ("stt_en_quartznet15x5.nemo", "; the nearest is stt_en_quartznet15x5.")):
        config = StudyConfig(corpus=str(tmp_path), source=given, cache=str(tmp_path)).resolved()  # type: ignore[arg-type]
        with pytest.raises(ConfigError) as caught:
            open_inputs(config)
        assert f"{given}: there is no such file{said}" in str(caught.value)
    with pytest.raises(ConfigError, match="no such subset; the nearest is librispeech:train-clean-100[.]"):
        is_name("librispeech:train_clean_100")


def test_names_of_others_are_no_names_of_ours() -> None:
    for ours, others in SYNONYMS.items():
        assert meant(others.split()[0], [ours, "colour"]) == [ours]


@pytest.mark.parametrize(("name", "flag"), [("--validation", "--dev"), ("--val-manifest", "--dev"),
                                            ("--train-manifest", "--train"), ("--test-set", "--test")])
def test_splits_are_known_by_the_names_of_other_tools(name: str, flag: str) -> None:
    assert meant(name, ["--corpus", "--train", "--dev", "--test", "--ablation"]) == [flag]


def test_no_field_of_a_language_is_near_to_any_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("code: gl\nletters: abc\nx: 1\n", encoding="utf-8")
    with pytest.raises(LanguageError, match="x: there is no such field; there are code, letters, "):
        language(path)
