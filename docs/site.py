"""What the site has beside these pages: README and its like, and the files that pages link to."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
}
LINK = re.compile(r"(?<=\]\()(?!https?://|#)[^)#\s]+")
FRONT = ("README.md", "__init__.py")
"""What a link to a folder leads to: the first of these that it has."""


def on_config(config: MkDocsConfig) -> None:
    """Lists the decisions in the navigation."""
    pages = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.glob("decisions/*.md"))
    (section,) = (each for each in config.nav or [] if "Decisions" in each)
    section["Decisions"] = sorted(pages, key=lambda page: not page.endswith("README.md"))


def on_files(files: Files, *, config: MkDocsConfig) -> None:
    """Adds the pages of the root, and every file outside this folder that a page links to."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for target in {path for page in list(files.documentation_pages()) for path in linked(page)}:
        if place(target).startswith("files/"):
            files.append(File.generated(config, place(target), abs_src_path=str(target)))


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between files of the repository into links between pages of the site."""

    def on_the_site(link: re.Match[str]) -> str:
        return os.path.relpath(place(resolved(page.file, link[0])), Path(page.file.src_uri).parent)

    return LINK.sub(on_the_site, markdown)


def linked(page: File) -> Iterator[Path]:
    """The files that a page links to."""
    return (resolved(page, link) for link in LINK.findall(page.content_string))


def resolved(page: File, link: str) -> Path:
    """The file that a link of a page leads to."""
    target = (Path(str(page.abs_src_path)).parent / link).resolve()
    if not target.is_dir():
        return target
    front = [target / name for name in FRONT if (target / name).exists()]
    if not front:
        raise ValueError(f"{page.src_uri}: a link to a folder needs one of {FRONT} in it, found {link}")
    return front[0]


def place(target: Path) -> str:
    """Where the site has a file of the repository."""
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    name = target.relative_to(ROOT).as_posix()
    return PAGES.get(name, f"files/{name}")
