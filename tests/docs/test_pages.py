"""Links between pages lead somewhere, commands that pages name exist, and the README's layers run."""

import re
from pathlib import Path

import pytest

from lorbms_fast.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")])


def anchors(page: Path) -> set[str]:
    """Headings as GitHub makes addresses of them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{target}: no such file"
        if anchor:
            assert anchor in anchors(other), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_pages_name_exist(page):
    text = page.read_text()
    blocks = "".join(re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL))
    named = re.findall(r"`lorbms-fast ([a-z][a-z-]*)", text) + re.findall(
        r"^lorbms-fast ([a-z][a-z-]*)", blocks, re.MULTILINE
    )
    assert set(named) <= set(COMMANDS)


def test_every_command_has_its_line():
    page = (ROOT / "docs" / "cli.md").read_text()
    assert not [name for name in COMMANDS if f"lorbms-fast {name} " not in page]


def test_every_exit_status_is_listed():
    said = " ".join((main.__doc__ or "").partition("Exit status:")[2].split())
    listed = " ".join((ROOT / "docs" / "cli.md").read_text().split()).partition("exits with ")[2].partition(". ")[0]
    assert re.findall(r"\b\d+\b", listed) == re.findall(r"\b\d+\b", said) == ["0", "1", "2", "130", "141"]


def test_the_layers_of_the_readme_run():
    (lines,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict = {}
    exec(lines, names)
    assert names["y"].shape == (2, 256, 32, 32)


def test_the_readme_is_short_and_says_what_was_not_measured():
    text = README.read_text()
    assert len(text.splitlines()) <= 120
    assert "**Not measured: anything on a GPU.**" in text
