"""Every link and every anchor of the READMEs leads somewhere."""

import re

import pytest

from common import files

FOLDERS = (
    "common",
    "common/images",
    "logreg_softmax",
    "method1_noise_optimization",
    "method2_fgsm",
    "tests/benchmarks",
)
PAGES = [page for folder in ("", *FOLDERS) for page in sorted((files.ROOT / folder).glob("*.md"))]


def without_code(page):
    """The text of a page without its blocks of code, in which a # begins no heading."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def anchors(page):
    """What links call the headings of a page, as GitHub does it."""
    headings = re.findall(r"^#+ +(.+?) *$", without_code(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(files.ROOT)))
def test_every_link_and_anchor_leads_somewhere(page):
    prose = re.sub(r"`[^`\n]*`", "", without_code(page))
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert target.is_relative_to(files.ROOT), link
        assert not anchor or anchor in anchors(target), link
