"""Every link and every anchor of the READMEs leads somewhere."""

import re

import pytest

from common import files

FOLDERS = ". common common/images logreg_softmax method1_noise_optimization method2_fgsm".split()
PAGES = [page for folder in FOLDERS for page in sorted((files.ROOT / folder).glob("*.md"))]


def prose(path):
    """A page without its code, in which brackets are no links."""
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)


def anchors(path):
    """What the headings of a page are called in links, as GitHub does it."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)
    found = []
    for heading in re.findall(r"^#+ +(.+?) *$", text, flags=re.M):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        again = sum(
            re.fullmatch(rf"{re.escape(name)}(-\d+)?", other) is not None for other in found
        )
        found.append(f"{name}-{again}" if again else name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(files.ROOT)))
def test_every_link_and_anchor_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{page.name}: {link}"
        assert target.is_relative_to(files.ROOT), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"
