"""A space of one's own: that of the tutorial is one, and what another one lacks is said before anything is started."""

import re
import sys
from pathlib import Path

import pytest

import spaces
from search.config import ConfigError, StudyConfig
from search.speech.search_space import check_space, load_space
from search.speech.study_inputs import open_inputs
from search.tuning.optuna_study import draw
from spaces import spanish

pytestmark = pytest.mark.timeout(30)

TUTORIAL = Path(__file__).resolve().parents[1] / "docs" / "tutorial.md"
WHOLE = re.findall(r"^```python\n(.*?def sample.*?)^```$", TUTORIAL.read_text("utf-8"), re.MULTILINE | re.DOTALL)[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A second folder of spaces, in which a module may be written."""
    monkeypatch.setattr(spaces, "__path__", [*spaces.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "spaces.mine", raising=False)
    return tmp_path


def refusal(folder: Path, code: str, name: str = "mine", source: str | None = "none") -> str:
    """What is said of a space of this code, as a study asks for it."""
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        open_inputs(StudyConfig(corpus=str(folder), source=source, space=name).resolved())  # type: ignore[arg-type]
    assert str(caught.value).count("\n") == 0
    return str(caught.value)


@pytest.mark.parametrize("has_source", [True, False])
@pytest.mark.parametrize("max_epochs", [1, 30])
def test_space_of_the_tutorial_is_one_and_so_are_ours(folder: Path, max_epochs: int, has_source: bool) -> None:
    (folder / "fromthetutorial.py").write_text(WHOLE, encoding="utf-8")
    for name in ("fromthetutorial", "spanish", "synthetic"):
        check_space(load_space(name), max_epochs, has_source)


@pytest.mark.parametrize("has_source", [True, False])
def test_space_that_draws_what_ours_do_not_is_one(folder: Path, has_source: bool) -> None:
    """Its hand recipes are ours, and each of its choices is drawn."""
    searching = TUTORIAL.with_name("searching.md").read_text(encoding="utf-8")
    (folder / "near.py").write_text(searching.partition("```python\n")[2].partition("```")[0], encoding="utf-8")
    space = load_space("near")
    check_space(space, 3, has_source)
    for name, given in space.baseline(max_epochs=3, has_source=has_source).items():
        ours = spanish.baseline(max_epochs=3, has_source=has_source)[name]
        assert draw(space, 3, has_source, 0, given)[0] == draw(spanish, 3, has_source, 0, ours)[0]
    drawn = [draw(space, 3, has_source, seed, {})[0].transfer for seed in range(40)]
    assert len({transfer.layer_lr_decay for transfer in drawn}) == (40 if has_source else 1)
    assert {transfer.frozen_part for transfer in drawn} == {"encoder"} | (
        {"encoder_but_batchnorm"} if has_source else set())
    assert {transfer.source_l2 > 0 for transfer in drawn} == ({False, True} if has_source else {False})


def test_functions_may_be_another_spaces(folder: Path) -> None:
    (folder / "borrowed.py").write_text("from spaces import synthetic\nfrom spaces.synthetic import *\n"
                                        "baseline = synthetic.baseline\n", encoding="utf-8")
    check_space(load_space("borrowed"), 6, has_source=True)
    with pytest.raises(ConfigError, match="space is 'borowed'; it must be one of .*borrowed.* the nearest is borrowed"):
        load_space("borowed")


@pytest.mark.parametrize(("old", "new", "said"), [
    ("def vocabularies", "def words", "lacks vocabularies(), which lists every vocabulary that sample can draw."),
    ("def sample(", "sample = 3\ndef draw(", "lacks sample(trial, *, max_epochs, has_source), which draws a Recipe."),
    ("SOURCE_NETWORK =", "NETWORK =", "lacks SOURCE_NETWORK, the name of what is trained without a source."),
    ('SOURCE_NETWORK = "15x5"', 'SOURCE_NETWORK = "big"', "has SOURCE_NETWORK = 'big', and network is 'big'; it must"),
    ("from spaces.spanish", "from spaces.spanich", "cannot be imported in line 2 (ModuleNotFoundError: "),
    ("def baseline(", "def baseline(:", "cannot be imported in line 12 (SyntaxError: "),
    ("max_epochs, has_source):\n    return {", "epochs):\n    return {", "baseline() failed (TypeError: "),
    ("    return Recipe(", "    return dict(", "sample() of the hand recipe 'gentle' gives dict; it must be a Recipe."),
    ('log=True)', 'log=1, far=2)', "sample() of the hand recipe 'gentle' failed in line 7 (TypeError: "),
    ('"lr": 1e-4', '"lr": 1.0', "sample() of the hand recipe 'gentle' failed in line 7 (UserWarning: "),
    ('"lr": 1e-4', '"lrr": 1e-4', "the hand recipe 'gentle' sets lrr, which sample() does not draw there; the nearest"),
    ('kind="characters"', 'kind="bpe", size=64', "draws the vocabulary characters of size 0, which vocabularies()"),
    ('[VocabularyRecipe(kind="characters")]', "['characters']", "vocabularies() gives 'characters'; each must be a"),
    ("if has_source else", "if True else", "starts from a source or has its shape where has_source is False."),
])
def test_what_a_space_lacks_is_said(folder: Path, old: str, new: str, said: str) -> None:
    assert WHOLE.count(old) >= 1
    message = refusal(folder, WHOLE.replace(old, new, 1))
    assert f"{folder}/mine.py: the space " in message and said in message and "tutorial.md" in message


def test_what_is_no_space_is_answered_by_those_that_are() -> None:
    for name in ("recipe", "typed", "../mine", "a.b", ""):
        with pytest.raises(ConfigError, match=f"space is '{name}'; it must be one of spanish, synthetic, or a module"):
            load_space(name)


def test_space_that_was_mended_is_read_again(folder: Path) -> None:
    refusal(folder, WHOLE.replace("def vocabularies", "def words"), name="mended")
    (folder / "mended.py").write_text(WHOLE + "# mended\n", encoding="utf-8")
    check_space(load_space("mended"), 3, has_source=True)


def test_module_that_ends_the_program_ends_no_study(folder: Path) -> None:
    code = "import sys\nsys.exit(7)\n"
    assert "cannot be imported in line 2 (SystemExit: 7)" in refusal(folder, code)
    with pytest.raises(ConfigError, match="space is 'nothing'; it must be one of spanish, synthetic, or"):
        load_space("nothing")  # which looks at every module that lies there
