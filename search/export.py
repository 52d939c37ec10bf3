"""The winner -> best/: recipe.yaml, model.nemo, and a card of what was measured."""

import os
import shutil
from dataclasses import replace
from typing import Any

from models.frontend import FrontendConfig
from models.nemo import SourceModel, write_nemo
from search.confirm import Confirmed
from search.evaluate import load_trial
from search.folder import RunFolder
from search.setting import TrialSetting
from search.summary import card


def export_best(run: RunFolder, source: SourceModel | None, setting: TrialSetting, confirmed: Confirmed,
                summary: dict[str, Any]) -> None:
    """Write `best/`, aside first and then renamed, so that it is never half there."""
    aside = run.path / "best.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    winner = confirmed.winner
    study = {"corpus": list(run.config.corpus), "language": run.config.language, "source": run.config.source,
             "name": run.name, "seed": winner.best_training.seed}
    replace(winner.recipe, study=study).save(aside / "recipe.yaml")
    acoustic, vocabulary = load_trial(setting, winner.recipe, winner.best_training.best_weights)
    frontend = source.frontend if source else FrontendConfig()
    write_nemo(aside / "model.nemo", frontend, acoustic.encoder.config, vocabulary, acoustic.state_dict())
    (aside / "card.txt").write_text(card(summary), encoding="utf-8")
    shutil.rmtree(run.best, ignore_errors=True)
    os.replace(aside, run.best)
