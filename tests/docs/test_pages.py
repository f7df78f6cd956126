"""What the pages in docs/ say is run, and what they point to is there."""

import doctest
import re
from pathlib import Path

import pytest
from matplotlib.image import imread

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
INDEX = ROOT / "docs" / "README.md"


@pytest.mark.parametrize("page", [page for page in PAGES if page != INDEX], ids=lambda page: page.name)
def test_examples_hold(page, monkeypatch):
    """The blocks of a page are one session, run from the root of the repository."""
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    session = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, str(page), 0)
    assert session.examples
    report = []
    doctest.DocTestRunner().run(session, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert targets
    for target in targets:
        path = page.parent / target
        assert path.exists(), target
        if path.suffix == ".png":
            assert path.stat().st_size < 200_000 and imread(path).std() > 0.05


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_a_page_meet_a_heading(page):
    text = page.read_text()
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_the_index_names_every_page():
    named = set(re.findall(r"\]\(([\w-]+\.md)\)", INDEX.read_text()))
    assert named == {page.name for page in PAGES if page != INDEX}
