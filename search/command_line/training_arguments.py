"""The command line of a production training -> its recipe and TrainingConfig."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.command_line.flags import Parser, read_flags
from search.config import ConfigError
from search.records.run_folder import kind_of
from search.training_config import TrainingConfig, load_training
from spaces.recipe import Recipe, RecipeError
from spaces.typed import build

_DESCRIPTION = """Train a recipe to its end, for production, on one node or many: mixed precision, the recipe's global
batch for any number of workers, a checkpoint every ten minutes. Ends with the model as .nemo, ONNX and TorchScript
and a card of what was measured. Corpus, language and source are those of the recipe's study: recipe.yaml has them."""


def parse_training(arguments: Sequence[str] | None = None) -> tuple[Recipe, TrainingConfig, bool, bool]:
    """Read a recipe's path or `--resume DIR`, `--look-again` and a flag for every field: (recipe, config, resume,
    look_again). Exits with code 2 on wrong usage.

    Raises:
        ConfigError, RecipeError: the recipe or the training to resume is at fault, not the usage.
    """
    parser = Parser(description=_DESCRIPTION, stray="is one value too many: a training takes one recipe, and every "
                    "other value has a flag.")
    parser.add_argument("recipe", metavar="RECIPE", nargs="?",
                        help="a run's folder, for its best/recipe.yaml; or a recipe.yaml")
    parser.add_argument("--resume", metavar="DIR", help="Resume the training in this folder where it stopped.")
    parser.add_argument("--look-again", action="store_true",
                        help="With --resume: read the test split once more. Every look is kept in test.json.")
    given, flags = read_flags(parser, TrainingConfig, "the training", arguments)
    if bool(given.recipe) == bool(given.resume):
        parser.error("give a run's folder or a recipe.yaml to start a training, or --resume DIR to resume one")
    if given.look_again and not given.resume:
        parser.error("--look-again reads the test split of a training that has read it before; give it with --resume")
    values: dict[str, Any] = {}
    if given.resume:
        if given.out:
            parser.error("--resume uses its own folder; leave out --out")
        recipe, values = load_training(Path(given.resume).expanduser().resolve())
        flags["out"] = given.resume
    else:
        recipe = Recipe.load(recipe_file(Path(given.recipe)))
    try:
        config = build(TrainingConfig, values | flags, ConfigError)
        config.study(config.recipe(recipe))
    except (ConfigError, RecipeError) as error:
        parser.error(str(error))
    return recipe, config, bool(given.resume), given.look_again


def recipe_file(path: Path) -> Path:
    """The recipe at a path; of a run's folder that of its best model, and of best/ its own.

    Raises:
        RecipeError: the folder holds no recipe.
    """
    if not path.is_dir():
        return path
    found = next((file for file in (path / "best" / "recipe.yaml", path / "recipe.yaml") if file.is_file()), None)
    if found is None:
        kind = kind_of(path)
        mend = f"The {kind.name} in it has not ended; resume it: {kind.going_on(path)}." if kind else "Check the path."
        raise RecipeError(f"{path}: is a folder without best/recipe.yaml, which a finished run has. {mend}")
    return found
