"""YAML from anywhere is a mapping, or one line that says why not."""

from pathlib import Path

import pytest

from files.mapping import load_yaml

pytestmark = pytest.mark.timeout(30)

BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))


class Refused(ValueError):
    """The caller's error."""


@pytest.mark.parametrize(("text", "why"), [
    ("day: 2026-13-45", "month must be in 1..12"), ("n: !!int x", "invalid literal"), ("n: !!bool x", "'x'"),
    ("n: !!timestamp x", "groupdict"), ("n: " + "1" * 5000, "Exceeds the limit"),
    ("n: " + "[" * 3000 + "]" * 3000, "nested too deep"), (BOMB, "with its aliases more than 200,000 values"),
    ("trials: 5\nseed: 1\ntrials: 50", "line 3: trials occurs twice"),
])
def test_what_yaml_cannot_hold_is_told_in_one_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Refused) as caught:
        load_yaml(path, "recipe", Refused)
    said = str(caught.value)
    assert said.startswith(f"{path}: not a readable YAML recipe (") and why in said and said.isprintable()


def test_folder_is_told_as_one(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is a folder, not a readable YAML recipe. Name the file"):
        load_yaml(tmp_path, "recipe", Refused)


def test_alias_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a [1]\nb: *a\n", encoding="utf-8")
    assert load_yaml(tmp_path / "a.yaml", "recipe", Refused) == {"a": [1], "b": [1]}
