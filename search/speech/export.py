"""Write best/: recipe and model, for Cuarzo, NeMo and other runtimes, and a card with the figures."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from corpora.reference import Reference
from files.atomic import rename, write_aside
from models.export import ExportError, export_onnx, export_torchscript
from models.frontend import FrontendConfig
from models.nemo_recipe import write_nemo_recipe
from models.recognizer import Recognizer
from search.candidate import Candidate
from search.config import CORPUS_FIELDS
from search.records.run_folder import RunFolder
from search.speech.task import SpeechTask
from search.speech.transcribe_split import load_trial
from search.trials.context import TrialContext
from spaces.recipe import Recipe


def export_models(run: RunFolder, context: TrialContext, winner: Candidate,
                  cards: Mapping[str, str]) -> None:
    """Write `best/` with the weights of the winner's best seed, aside and renamed, so that it is never incomplete.

    `cards` are texts by file name.
    """
    aside, before = run.path / "best.part", run.path / "best.before"
    for left in (aside, before):
        shutil.rmtree(left, ignore_errors=True)
    aside.mkdir()
    named = {name: list(paths) for name in CORPUS_FIELDS if (paths := getattr(run.config, name)) or name == "corpus"}
    study = named | {"language": asdict(run.config)["language"],
             "source": run.config.source_called(winner.recipe.transfer.source),
             "allow_overlap": run.config.allow_overlap, "name": run.name, "objective": run.config.objective,
             "seed": winner.best_training.seed, "reference": Reference.load(run.reference).key}
    acoustic, vocabulary = load_trial(context, winner.recipe, winner.best_training.best_weights)
    source = SpeechTask.of(context).source_of(winner.recipe)
    recognizer = Recognizer(source.frontend if source else FrontendConfig(), acoustic, vocabulary)
    # The exporting machine may have no GPU, and another precision than those that trained.
    precision = winner.best_training.precision or context.task.trainer_precision(context.device)
    write_model(aside, replace(winner.recipe, study=study), recognizer, precision=precision,
                language=run.config.spoken.code)
    for name, text in cards.items():
        write_aside(aside / name, text.encode())
    if run.best.exists():
        rename(run.best, before)
    rename(aside, run.best)
    shutil.rmtree(before, ignore_errors=True)


def write_model(folder: Path, recipe: Recipe, recognizer: Recognizer, *, precision: str, language: str) -> None:
    """Write `recipe.yaml`, `nemo.yaml`, `model.nemo`, `model.onnx` and `model.ts`; `precision` is Lightning's name.

    The last two are optional: if PyTorch cannot write one, a line says so and it is left out.
    """
    recipe.save(folder / "recipe.yaml")
    recognizer.save(folder / "model.nemo")
    write_nemo_recipe(folder / "nemo.yaml", recipe, recognizer.frontend.config, recognizer.acoustic.encoder.config,
                      recognizer.vocabulary, precision=precision)
    for export, name in ((partial(export_onnx, frontend=True), "model.onnx"), (export_torchscript, "model.ts")):
        try:
            export(recognizer, folder / name, language=language)
        except ExportError as error:
            print(f"{error} The winner's other files are complete.", flush=True)
