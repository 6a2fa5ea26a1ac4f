"""Hooks of MkDocs: pages from files outside docs/, links to them, and a check that every public name is on a page.

Links in a page are those of the repository, so that they also work on a code host. The site has the same tree, with docs/ at
its root: README.md is the home page, docs/training.md is training.html, and benchmarks/RESULTS.md is benchmarks/RESULTS.html.
Another file that a page links to, such as configs/imagenet.py, becomes a page that lists it.
"""

import logging
import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = "docs/"
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
IMAGE = re.compile(r'<img src="([^"]+)" width="(\d+)" alt="([^"]*)">')
PUBLIC = ("checkpoints", "convert", "data", "explain", "export", "models", "ops")

logger = logging.getLogger("mkdocs.hooks.site")


@event_priority(100)  # before the plugin that makes pages of notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files outside docs/ that the navigation names, then those that pages link to."""
    for path in _paths(config.nav):
        if not files.get_file_from_path(path):
            files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
    pages = [file for file in files if file.src_uri.endswith(".md")]
    for page in pages:  # which grows
        for link, _ in LINK.findall(IMAGE.sub(r"![\3](\1)", page.content_string)):
            path = _target(page, link)
            if path is None or path.startswith(DOCS) or files.get_file_from_path(_uri(path)):
                continue
            if not (ROOT / path).is_file():
                logger.warning("%s links to %s, which is no file.", page.src_uri, path)
            elif path.endswith(".md"):
                unlisted = InclusionLevel.NOT_IN_NAV
                files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls, inclusion=unlisted))
                pages.append(files.get_file_from_path(path))
            else:
                files.append(File.generated(config, _uri(path), content=_listing(path), inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links of the repository into those of the site."""
    folder = posixpath.dirname(page.file.src_uri) or "."

    def site_link(found: re.Match[str]) -> str:
        path = _target(page.file, found[1])
        return found[0] if path is None else posixpath.relpath(_uri(path), folder) + (found[2] or "")

    return LINK.sub(site_link, IMAGE.sub(r"![\3](\1){ width=\2 }", markdown))


def on_env(env: object, config: MkDocsConfig, files: Files) -> None:
    """Warns of public names that no page of docs/api/ documents, and of functions and classes without a docstring."""
    package = griffe.load("paca_jax", search_paths=[ROOT])
    prose = "".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    for module in (package, *(package[name] for name in PUBLIC)):
        for name in module.exports:
            path = f"{module.path}.{name}"
            try:
                config.plugins["autorefs"].get_item_url(path)
            except KeyError:
                if f"`{name}`" not in prose and f"`{path}`" not in prose:  # in which pages describe constants and modules
                    logger.warning("%s is on no page of docs/api/.", path)
            else:
                if not module[name].has_docstring:
                    logger.warning("%s has no docstring.", path)


def _paths(nav: object) -> list[str]:
    """Returns the paths that a navigation names."""
    if isinstance(nav, str):
        return [nav]
    return [path for part in (nav.values() if isinstance(nav, dict) else nav) for path in _paths(part)]


def _target(page: File, link: str) -> str | None:
    """Returns the path in the repository that a page's link leads to; None if it leads out of it, or the page is a listing."""
    if page.src_dir is None or re.match(r"[a-z]+:", link):
        return None
    place = page.src_uri if page.src_dir == str(ROOT) else DOCS + page.src_uri
    return posixpath.normpath(posixpath.join(posixpath.dirname(place), link))


def _uri(path: str) -> str:
    """Returns the path in the site of a path in the repository."""
    uri = path.removeprefix(DOCS)
    return uri if posixpath.splitext(uri)[1] in (".ipynb", ".md", ".png") else f"{uri}.md"


def _listing(path: str) -> str:
    language = {".py": "python", ".sh": "bash"}.get(posixpath.splitext(path)[1], "text")
    return f"# `{path}`\n\n````{language}\n{(ROOT / path).read_text()}````\n"
