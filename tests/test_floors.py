"""Imports run one way: what is trained does not know how it runs, and only `search` knows Ray and W&B.

Files and functions stay short enough to read.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(30)

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("corpora", "files", "models", "search", "spaces")

MAY_IMPORT = {
    "spaces": {"spaces", "files.atomic", "files.mapping", "installation"},
    "files": {"files", "installation"},
    "corpora": {"corpora", "files", "installation"},
    "models": {"models", "spaces.recipe", "corpora", "files", "installation"},
    "search": {"search", "models", "spaces", "corpora", "files", "installation"},
}
"""Of ours, by the package that imports; of `spaces` the models know the recipe alone."""

KNOW_OPTUNA = {"search/results/importance.py", "search/results/report_page.py", "search/speech/task.py",
               "search/study.py", "search/task.py",
               "search/tuning/nearby.py",
               "search/tuning/optuna_private.py", "search/tuning/optuna_study.py", "search/tuning/searcher.py",
               "search/tuning/tpe.py", "search/tuning/warm_start.py"}
"""In addition to spaces/. The report draws with optuna.visualization, importance uses optuna.importance, a warm start
reads Optuna studies; a task draws recipes by an Optuna trial."""


MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 60


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
             if name.partition(".")[0] in (*PACKAGES, "installation")
             and not any(is_within(name, floor) for floor in MAY_IMPORT[path.partition("/")[0]])]
    assert wrong == []


def test_contributing_says_what_each_room_may_import() -> None:
    rows = re.findall(r"^\| `(\w+)/` \|.*\| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE)
    said = {room: {room, *re.findall(r"`([\w.]+)`", cell)} for room, cell in rows if room in MAY_IMPORT}
    assert said.pop("search") == {"search"}, "it may import all, so none is listed"
    assert said == {room: allowed for room, allowed in MAY_IMPORT.items() if room != "search"}


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


PRIVATE_TO = {"ray": "search/ray_private.py", "optuna": "search/tuning/optuna_private.py",
              "torch": "search/trials/torch_private.py", "wandb": "search/trials/wandb_private.py"}
"""Where the members of each library that it does not document are used: one file each, whose test says what broke."""

LIBRARIES = (*PRIVATE_TO, "lightning_fabric", "lightning_utilities", "pytorch_lightning", "torchaudio",
             "wandb_workspaces")
UNDOCUMENTED = ("ray.air.execution", "ray.core", "ray.tune.execution", "wandb.sdk",
                "wandb_workspaces.workspaces.internal")
BY_NAME = ("getattr", "setattr", "hasattr", "delattr", "attrgetter", "operator.attrgetter", "vars")
NOT_THEIRS = {"os._exit", "parser._option_string_actions", "self._begin", "self._ended"}
"""Of the standard library, and of `Draws` of ours in a class that is made of it."""


def private_uses(tree: ast.AST) -> Iterator[str]:
    """Imports of what a library keeps to itself, and members with an underscore that the file itself does not define,
    by whatever name they are reached."""
    own = {node.name for node in ast.walk(tree)
           if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            target = ast.unparse(node).removeprefix("self.").removeprefix("cls.")
            own |= {target}  # one with a dot is of something else, and no name of a member
    for name in imported(tree):
        of_library = any(is_within(name, library) for library in LIBRARIES)
        if of_library and (any(map(is_private, name.split("."))) or any(is_within(name, one) for one in UNDOCUMENTED)):
            yield name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in BY_NAME:
            yield from (repr(word.value) for word in node.args
                        if isinstance(word, ast.Constant) and is_private(str(word.value)) and word.value not in own)
        elif (isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in own
              and re.fullmatch(r"_[a-z][a-z0-9]*_[a-z0-9_]*[a-z0-9]", node.value)):  # from a list, for `getattr`
            yield repr(node.value)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_what_libraries_keep_to_themselves_is_used_in_one_file_each() -> None:
    wrong = [f"{path}: {use}" for path, tree in sources(*PACKAGES, "benchmarks")
             if path not in PRIVATE_TO.values()
             for use in private_uses(tree) if use not in NOT_THEIRS]
    assert wrong == []


@pytest.mark.parametrize(("library", "file"), PRIVATE_TO.items())
def test_file_of_a_librarys_own_members_uses_that_library_alone(library: str, file: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert (ROOT / f"tests/test_{file.replace('/', '_')}").exists() and list(private_uses(tree)) or library == "wandb"
    others = {name.partition(".")[0] for name in imported(tree)} & {*LIBRARIES}
    assert others <= {library}


@pytest.mark.parametrize("planted", [
    "from ray._private import worker", "import ray._private.worker as w", "from ray.train._internal.session import f",
    "from ray import _raylet", "def late():\n    from ray._private.state import state",
    "from ray.air.execution._internal.actor_manager import RayActorManager", "from wandb.sdk.lib import service",
    "from ray.core.generated.gcs_pb2 import Table", "from ray.tune.execution.tune_controller import TuneController",
    "import torch\ntorch._C.set()", "ray.worker._global_node", "Trial(study, trial._trial_id)",
    "view._internal_name = 'x'", "study._storage.read()", "getattr(error, '_base_exc')",
    "getattr(asha, '_brackets')", "for name in ('cause', '_base_exc'):\n    getattr(error, name)",
    "class Asha(ASHAScheduler):\n    def rungs(self):\n        return self._brackets[0]._rungs",
    "setattr(TuneController, '_process_trial_failure', mine)", "importlib.import_module('ray._private.worker')",
    "from optuna.storages._rdb import models", "from pytorch_lightning.trainer import _x"])
def test_planted_use_of_a_private_member_is_found(planted: str) -> None:
    assert list(private_uses(ast.parse(planted))), planted


SET_IT = {
    "search/environment.py": 9,
    "installation.py": 1,  # ranks that Lightning could not be imported for; it knows the standard library alone
}
"""Files that change the environment, and in how many places."""


def changes_of_environment(tree: ast.AST) -> Iterator[ast.AST]:
    """Every place that sets or removes a variable of this process."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            held = ast.unparse(node.value)
        elif isinstance(node, ast.AugAssign):
            held = ast.unparse(node.target)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            held, method = ast.unparse(node.func.value), node.func.attr
            if held == "os" and method in ("putenv", "unsetenv"):
                yield node
            if method not in ("update", "setdefault", "pop", "popitem", "clear"):
                continue
        else:
            continue
        if held.rpartition(".")[2] in ("environ", "environb"):
            yield node


def test_environment_is_changed_in_one_file() -> None:
    ours = [*sources(*PACKAGES), *((name, ast.parse((ROOT / name).read_text(encoding="utf-8")))
                                   for name in ("installation.py", "cuarzo.py"))]
    found = {path: number for path, tree in ours if (number := len([*changes_of_environment(tree)]))}
    assert found == SET_IT


@pytest.mark.parametrize("planted", [
    "os.environ['A'] = 'b'", "os.environ |= {'A': 'b'}", "os.environ.update(A='b')", "os.environ.setdefault('A', 'b')",
    "del os.environ['A']", "os.environ.pop('A', None)", "os.putenv('A', 'b')",
    "from os import environ\nenviron['A'] = 'b'",
    "import os as system\nsystem.environ['A'] = 'b'", "os.environb[b'A'] = b'b'", "os.environ['A'] += ':b'"])
def test_planted_change_of_the_environment_is_found(planted: str) -> None:
    assert list(changes_of_environment(ast.parse(planted))), planted
    assert not list(changes_of_environment(ast.parse("found = os.environ['A'] or os.environ.get('B')")))


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
    "search.records": {"search.config", "search.environment"},
    "search.tuning": {"search.records", "search.config", "search.cluster"},
    "search.trials": {"search.records", "search.config", "search.cluster", "search.environment", "search.ray_private",
                      "search.task"},
    "search.capacity": {"search.trials", "search.records", "search.config", "search.cluster", "search.environment",
                        "search.task"},
    "search.speech": {"search.capacity", "search.trials", "search.tuning", "search.records", "search.config",
                      "search.cluster", "search.task", "search.study_task", "search.candidate"},
    "search.results": {"search.speech", "search.capacity", "search.trials", "search.tuning", "search.records",
                       "search.config", "search.training_config", "search.candidate"},
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


TESTED_ELSEWHERE = {
    "compare", "report", "run", "train", "transcribe",  # scripts: test_search_scripts.py
    "study_task",  # a protocol, whose first case is test_search_speech_speech_study.py
}


def test_every_module_of_search_has_a_test_file_of_its_name() -> None:
    modules = {path.removeprefix("search/").removesuffix(".py").replace("/", "_") for path, _ in sources("search")
               if not path.endswith("__init__.py")}
    missing = {name for name in modules if not (ROOT / "tests" / f"test_search_{name}.py").exists()}
    assert missing == TESTED_ELSEWHERE


def python_files() -> list[Path]:
    """All Python files of the project, tests and benchmarks too."""
    folders = (*PACKAGES, "benchmarks", "docs", "tests")
    return [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]


def test_no_file_is_too_long_to_read() -> None:
    sizes = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
             for path in python_files()}
    assert len(sizes) > 250
    assert {path: size for path, size in sizes.items() if size > MAX_FILE_LINES} == {}, "split it by subject"


def test_no_function_is_too_long_to_read() -> None:
    sizes = {f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
             for path in python_files() for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert len(sizes) > 2000
    assert {name: size for name, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}
