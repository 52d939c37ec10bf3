"""Several pretrained models: each recipe starts from one of them, and the search chooses which."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
import torch
from noise_release import pack, release

from models.nemo import SourceModel, read_nemo, write_nemo
from search.command_line.arguments import parse_command_line
from search.config import ConfigError, StudyConfig, load_config
from search.records.fingerprints import Identity
from search.records.run_folder import RunFolder
from search.records.trial_record import TrialRecord
from search.speech.study_inputs import identify, open_inputs
from search.speech.task import SpeechTask
from spaces.recipe import Recipe, TransferRecipe

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def small(shared_data: Path) -> Path:
    return shared_data / "reference" / "quartznet5x5_small_random.nemo"


def save(path: Path, model: SourceModel) -> Path:
    write_nemo(path, model.frontend, model.network, model.vocabulary, model.state)
    return path


def other(small: Path, path: Path, by: float = 1.1) -> Path:
    """The same network with other weights."""
    model = read_nemo(small)
    state = {name: tensor * by if tensor.is_floating_point() else tensor for name, tensor in model.state.items()}
    return save(path, replace(model, state=state))


def config(folder: Path, **given: Any) -> StudyConfig:
    return StudyConfig(corpus=(str(pack(folder / "cv.tar", release())),), cache=str(folder / "cache"), **given)


# --- named ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "source"), [
    (["en.nemo", "it.nemo"], ("en.nemo", "it.nemo")), (["en.nemo"], "en.nemo"), (["none"], "none")])
def test_command_line_takes_one_or_several(given: list[str], source: Any) -> None:
    assert parse_command_line("", ["--corpus", "c", "--source", *given])[0].source == source


# --- opened ---------------------------------------------------------------------------------------------------------


def test_sources_of_one_shape_are_opened_and_make_the_study_what_it_is(small: Path, tmp_path: Path) -> None:
    more = other(small, tmp_path / "it.nemo")
    both, alone = (config(tmp_path, source=source).resolved() for source in ((str(small), str(more)), str(small)))
    inputs, single = open_inputs(both), open_inputs(alone)
    assert inputs and single and list(inputs.sources) == [small.stem, "it"] and list(single.sources) == [""]
    first, second = identify(both, inputs).source.split("+")
    assert first == identify(alone, single).source != second


def test_source_of_another_shape_is_refused_in_one_line(small: Path, tmp_path: Path, shared_data: Path) -> None:
    model = read_nemo(small)
    tidier = save(tmp_path / "tidier.nemo", replace(model, frontend=replace(model.frontend, pad_to=0)))
    for path, said in ((shared_data / "quartznet15x5_en.nemo", "its network differs from that of"),
                       (tidier, r"its front end differs from that of .*\(pad_to is 0, not 16\)")):
        with pytest.raises(ConfigError, match=said) as error:
            open_inputs(config(tmp_path, source=(str(small), str(path))).resolved())
        assert str(error.value).startswith(f"{path}: ") and "study of its own" in str(error.value)
        assert "\n" not in str(error.value)


def test_resumed_study_has_its_sources(tmp_path: Path) -> None:
    started = config(tmp_path, source=("/a/en.nemo", "/b/it.nemo"), out=str(tmp_path / "run"))
    run = RunFolder.open(started, resume=False)
    run.begin(Identity(corpus=("c",), source="1+2", space="s", features="f"))
    assert load_config(run.path).sources == {"en": "/a/en.nemo", "it": "/b/it.nemo"}
    resumed, *_ = parse_command_line("", ["--resume", str(run.path)])
    assert RunFolder.open(resumed, resume=True).config.sources == started.sources


# --- drawn ----------------------------------------------------------------------------------------------------------


def task(sources: Mapping[str, Any], **given: Any) -> SpeechTask:
    return SpeechTask(store=Path(), vocabularies=Path(), space="spanish", max_epochs=6,
                      sources=cast(Any, sources), **given)


def test_search_chooses_among_sources_and_tries_each_early() -> None:
    several = task({"en": 0, "it": 0, "ca": 0})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for parameters in several.hand_recipes().values():
        study.enqueue_trial(parameters)
    hand = [several.sample(study.ask()).transfer.source for _ in several.hand_recipes()]
    assert hand == ["en"] * 4 + ["it", "ca"]
    assert [*several.hand_recipes()][-2:] == ["statistics_kept from it", "statistics_kept from ca"]
    assert {several.sample(study.ask()).transfer.source for _ in range(40)} == {"en", "it", "ca"}
    for few in (task({"": 0}), task({})):
        trial = study.ask()
        assert few.sample(trial).transfer.source == "" and "transfer.source" not in trial.params
        assert not any("transfer.source" in parameters for parameters in few.hand_recipes().values())


def test_letters_are_kept_only_from_a_source_that_has_them() -> None:
    letters = {name: Recipe(transfer=TransferRecipe(decoder="letters", source=name)) for name in ("en", "it", "gone")}
    several = task({"en": 0, "it": 0}, lettered=frozenset({"it"}))
    assert "no letters to carry over" in str(several.why_infeasible(letters["en"]))
    assert "no letters" not in str(several.why_infeasible(letters["it"]))
    assert several.source_name(letters["gone"]) == "en" and task({}).source_name(letters["it"]) is None


def test_recipe_starts_from_its_own_source(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.speech.task.ray.get", lambda held: held)  # the study below has Ray's own
    models = {"en": read_nemo(small), "it": read_nemo(other(small, tmp_path / "it.nemo"))}
    several = task(models)
    for name, model in models.items():
        found = several.source_of(Recipe(transfer=TransferRecipe(source=name)))
        assert found and all(torch.equal(found.state[key], tensor) for key, tensor in model.state.items())
    assert several.source_of(Recipe()) is models["en"]


# --- a study --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_study_of_two_sources_names_the_winners_and_trains_it_again(small: Path, tmp_path: Path) -> None:
    more = other(small, tmp_path / "it.nemo")
    corpus = pack(tmp_path / "cv.tar", release("si"))
    flags = ["--corpus", str(corpus), "--source", str(small), str(more), "--trials", "6", "--max-epochs", "2",
             "--grace-epochs", "1", "--confirm", "1", "--seeds", "1", "--no-ablation", "--concurrency", "2",
             "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "run")]
    done = run_script("search/run.py", *flags)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    recipe = Recipe.load(tmp_path / "run" / "best" / "recipe.yaml")
    named = {small.stem: str(small.resolve()), "it": str(more)}
    assert summary["source"] == recipe.study["source"] == named[recipe.transfer.source]
    tried = [TrialRecord.load(path.parent).recipe.transfer.source
             for path in (tmp_path / "run" / "trials").glob("*/record.json")]
    assert {small.stem, "it"} <= set(tried) and summary["test"]["source_as_it_stands"]["wer"] > 0
    trained = run_script("search/train.py", str(tmp_path / "run" / "best" / "recipe.yaml"), "--epochs", "1",
                         "--out", str(tmp_path / "production"))
    assert trained.returncode == 0, trained.stderr[-2000:]
    assert json.loads((tmp_path / "production" / "summary.json").read_text())["source"] == summary["source"]


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=400)
