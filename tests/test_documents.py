"""The documents are a site in which every link leads somewhere, short where a newcomer begins, true about files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
"""Documents that are not in docs/, and are pages of the site."""


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("material", reason="mkdocs-material is not installed: the documents' links were not checked")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(site)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_site_builds_with_every_link_leading_somewhere(tmp_path: Path) -> None:
    built = build(ROOT / "mkdocs.yml", tmp_path)
    assert built.returncode == 0, built.stderr
    for name in ("index.html", "contributing/index.html", "benchmarks/index.html", "decisions/trials/index.html"):
        assert (tmp_path / name).is_file(), name
    assert 'href="tutorial/"' in (tmp_path / "index.html").read_text(encoding="utf-8"), "the README's docs/tutorial.md"
    assert not list(tmp_path.rglob("hooks.py"))


@pytest.mark.parametrize(("name", "link", "said"), [
    ("README.md", "[x](docs/nowhere.md)", "nowhere.md"),
    ("README.md", "[x](docs/report.md#nowhere)", "nowhere"),
    ("README.md", "[x](pyproject.toml)", "pyproject.toml"),
    ("docs/decisions/trials.md", "[x](../../CONTRIBUTING.md#nowhere)", "nowhere"),
    ("docs/tutorial.md", "![x](nowhere.png)", "nowhere.png"),
    ("docs/tutorial.md", "[x](/report.md)", "/report.md"),
    ("docs/unlisted.md", "# A page that no menu leads to", "unlisted.md"),
], ids=["page", "anchor", "outside", "anchor of an outside page", "picture", "absolute", "page beside the menu"])
def test_link_that_leads_nowhere_fails_the_build(name: str, link: str, said: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    docs = [str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*") if path.is_file()]
    for path in [*OUTSIDE, "mkdocs.yml", *docs]:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes((ROOT / path).read_bytes())
    with (copy / name).open("a", encoding="utf-8") as document:
        document.write(f"\n{link}\n")
    built = build(copy / "mkdocs.yml", tmp_path / "site")
    assert built.returncode == 1 and said in built.stderr, built.stderr


@pytest.mark.parametrize(("name", "max_bytes"), [("README.md", 8_000), ("CONTRIBUTING.md", 6_000)])
def test_where_a_newcomer_begins_is_short(name: str, max_bytes: int) -> None:
    assert (ROOT / name).stat().st_size <= max_bytes


def test_files_that_the_documents_name_are_there() -> None:
    named = {(path, file) for path in (*OUTSIDE[:2], *(ROOT / "docs").rglob("*.md"))
             for file in re.findall(r"`((?:corpora|models|search|benchmarks|tests|docs)/[\w./-]*)`",
                                    (ROOT / path).read_text(encoding="utf-8"))}
    assert len(named) > 40
    assert [f"{path}: {file}" for path, file in sorted(named, key=str) if not (ROOT / file).exists()] == []


def test_what_the_documents_name_in_a_file_is_in_it() -> None:
    named = {(path, name.split(".")[-1], file) for path in ("CONTRIBUTING.md", "docs/resume-walk.md")
             for name, file in re.findall(r"`([\w.]+)(?:\(\))?` in\s+`([\w/]+\.py)`", (ROOT / path).read_text("utf-8"))}
    assert len(named) > 10
    assert [found for found in sorted(named)
            if not re.search(rf"\b{found[1]}\b", (ROOT / found[2]).read_text("utf-8"))] == []


def test_first_two_blocks_of_the_readme_are_those_that_ci_runs() -> None:
    main_job, tests, *_ = re.findall(r"^```\w*\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    assert main_job.splitlines()[-1] == "python search/run.py" and tests.splitlines()[-1] == "pytest"
