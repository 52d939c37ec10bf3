"""Imports run one way: what is trained does not know how it runs, and only the top floor knows Ray and W&B."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(30)

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("corpora", "files", "models", "search", "spaces")

MAY_IMPORT = {
    "spaces": {"spaces", "files.atomic", "files.mapping"},
    "files": {"files"},
    "corpora": {"corpora", "files"},
    "models": {"models", "spaces.recipe", "corpora", "files"},
    "search": {"search", "models", "spaces", "corpora", "files"},
}
"""Of ours, by the package that imports; of `spaces` the models know the recipe alone."""

KNOW_OPTUNA = {"search/results/importance.py", "search/results/report_page.py", "search/speech/task.py",
               "search/study.py", "search/task.py",
               "search/tuning/optuna_study.py", "search/tuning/searcher.py", "search/tuning/tpe.py",
               "search/tuning/warm_start.py"}
"""Beside spaces/. The report draws with optuna.visualization, the importance is by optuna.importance, and a warm start
reads Optuna studies; a task draws recipes by an Optuna trial."""


def sources(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    """Every source file of the packages: path from the root, and its tree."""
    for package in packages:
        paths = sorted((ROOT / package).rglob("*.py"))
        assert paths, f"there is no file in {package}/"
        for path in paths:
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of all modules imported anywhere in a file, in functions and under conditions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            assert node.module is not None
            # `from spaces import recipe` imports spaces.recipe.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            name = node.args[0]
            prefix = name.values[0] if isinstance(name, ast.JoinedStr) else name
            assert isinstance(prefix, ast.Constant), f"{ast.unparse(node)}: nobody can tell what this imports"
            yield str(prefix.value).rstrip(".")


def is_within(name: str, floor: str) -> bool:
    return name == floor or name.startswith(floor + ".")


def test_no_import_runs_back_up() -> None:
    wrong = [f"{path} imports {name}"
             for path, tree in sources(*PACKAGES) for name in imported(tree)
             if name.partition(".")[0] in PACKAGES
             and not any(is_within(name, floor) for floor in MAY_IMPORT[path.partition("/")[0]])]
    assert wrong == []


def test_nothing_but_search_tests_and_benchmarks_imports_search() -> None:
    others = [path for path in ROOT.iterdir() if path.is_dir() and list(path.glob("*.py"))
              and path.name not in ("search", "tests", "benchmarks") and not path.name.startswith(".")]
    wrong = [f"{path} imports {name}" for folder in others for path, tree in sources(folder.name)
             for name in imported(tree) if is_within(name, "search")]
    assert {folder.name for folder in others} >= {"corpora", "files", "models", "spaces"} and wrong == []


def test_nothing_of_ours_imports_the_tests_or_the_benchmarks() -> None:
    wrong = [f"{path} imports {name}" for path, tree in sources(*PACKAGES) for name in imported(tree)
             if name.partition(".")[0] in ("tests", "benchmarks")]
    assert wrong == []


@pytest.mark.parametrize("file", ["installation.py", "files/atomic.py"])
def test_what_every_room_uses_needs_only_the_standard_library(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert {name.partition(".")[0] for name in imported(tree)} <= sys.stdlib_module_names | {"packaging"}


@pytest.mark.parametrize("library", ["ray", "wandb"])
def test_only_search_knows_ray_and_wandb(library: str) -> None:
    knowing = {path for path, tree in sources(*PACKAGES) if any(is_within(name, library) for name in imported(tree))}
    assert knowing, f"nothing imports {library}: is the name right?"
    assert {path for path in knowing if not path.startswith("search/")} == set()


def test_only_the_spaces_the_sampler_and_the_study_know_optuna() -> None:
    knowing = {path for path, tree in sources(*PACKAGES) if any(is_within(name, "optuna") for name in imported(tree))}
    assert knowing, "nothing imports optuna: is the name right?"
    assert {path for path in knowing if not path.startswith("spaces/")} <= KNOW_OPTUNA


def test_corpora_do_without_networks() -> None:
    wrong = [f"{path} imports {name}" for path, tree in sources("corpora") for name in imported(tree)
             if is_within(name, "torch.nn")]
    assert wrong == []


def test_spaces_need_only_the_standard_library_optuna_and_yaml() -> None:
    allowed = sys.stdlib_module_names | {"installation", "files", "spaces", "optuna", "yaml"}
    wrong = [f"{path} imports {name}" for path, tree in sources("spaces") for name in imported(tree)
             if name.partition(".")[0] not in allowed]
    assert wrong == []


def test_scripts_hold_main_and_nothing_else() -> None:
    """A class defined in a script is `__main__.X` on the driver and something else on a worker."""
    scripts = [(path, tree) for path, tree in sources("search") if "__main__" in ast.unparse(tree)
               and path != "search/report.py"]
    assert {path for path, _ in scripts} >= {"search/run.py", "search/transcribe.py"}
    for path, tree in scripts:
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)], path


def test_one_writer_renames_files() -> None:
    """What is renamed in another way may be empty after a power cut."""
    def renames(node: ast.AST) -> bool:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            return False
        owner, name = ast.unparse(node.func.value), node.func.attr
        return (owner, name) in {("os", "replace"), ("os", "rename"), ("shutil", "move")} or name == "rename" or (
            name == "replace" and len(node.args) == 1 and not node.keywords)

    found = {path for path, tree in sources(*PACKAGES) for node in ast.walk(tree) if renames(node)}
    assert found == {"files/atomic.py"}


ROOMS = {
    "search.records": {"search.config", "search.person"},
    "search.tuning": {"search.records", "search.config", "search.cluster"},
    "search.trials": {"search.records", "search.config", "search.cluster", "search.task"},
    "search.capacity": {"search.trials", "search.records", "search.config", "search.cluster", "search.task"},
    "search.speech": {"search.capacity", "search.trials", "search.tuning", "search.records", "search.config",
                      "search.cluster", "search.task"},
    "search.results": {"search.speech", "search.capacity", "search.trials", "search.tuning", "search.records",
                       "search.config", "search.training_config"},
}
"""Rooms that a room may import, from the lowest up; `command_line/` and the files right in search/ may import all."""

ENGINE = ("search/records/", "search/tuning/", "search/trials/", "search/capacity/", "search/task.py")
"""What trains and compares anything that is a `Task`."""


def test_rooms_import_one_way() -> None:
    wrong = [f"{path} imports {name}" for path, tree in sources("search") for name in imported(tree)
             if name.startswith("search.") and (room := ".".join(path.split("/")[:2])) in ROOMS
             and not any(is_within(name, other) for other in ROOMS[room] | {room, "search.wording"})]
    assert wrong == []


def test_engine_knows_no_speech() -> None:
    wrong = [f"{path} imports {name}" for path, tree in sources("search") if path.startswith(ENGINE)
             for name in imported(tree) if name.partition(".")[0] in ("corpora", "models")]
    assert wrong == []
