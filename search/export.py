"""What is taken away -> best/: recipe.yaml, model.nemo, and a card of what was measured."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace

from corpora.reference import Reference
from models.frontend import FrontendConfig
from models.nemo import SourceModel, write_nemo
from search.comparison import Candidate
from search.evaluate import load_trial
from search.folder import RunFolder
from search.setting import TrialSetting


def export_models(run: RunFolder, source: SourceModel | None, setting: TrialSetting, winner: Candidate,
                  cards: Mapping[str, str]) -> None:
    """Write `best/` with the weights of the winner's best seed, aside first and then renamed: it is never half there.

    `cards` are texts by file name.
    """
    aside = run.path / "best.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    study = {"corpus": list(run.config.corpus), "language": asdict(run.config)["language"],
             "source": run.config.source, "name": run.name, "seed": winner.best_training.seed,
             "reference": Reference.load(run.reference).key}
    replace(winner.recipe, study=study).save(aside / "recipe.yaml")
    acoustic, vocabulary = load_trial(setting, winner.recipe, winner.best_training.best_weights)
    frontend = source.frontend if source else FrontendConfig()
    write_nemo(aside / "model.nemo", frontend, acoustic.encoder.config, vocabulary, acoustic.state_dict())
    for name, text in cards.items():
        (aside / name).write_text(text, encoding="utf-8")
    shutil.rmtree(run.best, ignore_errors=True)
    os.replace(aside, run.best)
