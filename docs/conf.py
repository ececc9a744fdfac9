"""The documentation as a site: Sphinx reads the Markdown of this folder by MyST, furo shows it.

Pages link to each other as on a code host, by relative paths. Some files outside this folder are
pages, too. A link to another one leads to the repository that pyproject.toml states; while it
states none, the site has a copy.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

CHECKOUT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
REPOSITORY: str = PROJECT.get("urls", {}).get("Repository", "").rstrip("/")

project = PROJECT["name"]
release = version = PROJECT["version"]
project_copyright = "the authors of this implementation"

sys.path.insert(0, str(Path(__file__).parent))
extensions = ["myst_parser", "sphinx_copybutton", "api_pages"]
# Only names of this package are links.
nitpick_ignore_regex = [
    ("py:.*", r"(?!greenlet\.).*"),
    ("c:.*", r"(?!_?PyGreenlet|PyExc_Greenlet).*"),
]
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
exclude_patterns: list[str] = []
myst_heading_anchors = 4  # links to headings, as code hosts make them, are checked
copybutton_prompt_text = r"\$ |\(gdb\) |>>> "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True
highlight_language = "text"

html_theme = "furo"
html_title = f"greenlet {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1a6b3c", "color-brand-content": "#1a6b3c"},
    "dark_css_variables": {"color-brand-primary": "#6fcf97", "color-brand-content": "#6fcf97"},
}
if REPOSITORY:
    html_theme_options["source_repository"] = f"{REPOSITORY}/"  # type: ignore[assignment]


# Files outside this folder that are pages of the site.
SHOWN = {
    "changelog": "CHANGELOG.md",
    "examples": "examples/README.md",
    "internals/benchmarks": "benchmarks/README.md",
    "internals/contributing": "CONTRIBUTING.md",
}


def place_links(app: Sphinx, name: str, source: list[str]) -> None:
    """Fill the pages of SHOWN, and let links to files outside lead there, or to the repository."""
    pages = {CHECKOUT / path: app.srcdir / f"{page}.md" for page, path in SHOWN.items()}
    here = (app.srcdir / name).parent
    folder = here
    if name in SHOWN:
        file = CHECKOUT / SHOWN[name]
        app.env.note_dependency(str(file))
        source[0] = file.read_text()
        folder = file.parent

    def replace(link: re.Match[str]) -> str:
        text, target, anchor = link.group(1), link.group(2), link.group(3) or ""
        path = folder.joinpath(target).resolve()
        path = pages.get(path, path)
        relative = os.path.relpath(path, here)
        if path.is_relative_to(app.srcdir):
            return f"[{text}]({relative}{anchor})"
        if REPOSITORY:
            return f"[{text}]({REPOSITORY}/blob/HEAD/{path.relative_to(CHECKOUT)}{anchor})"
        return f"[{text}](path:{relative})" if path.is_file() else text

    source[0] = re.sub(r"\[([^]\n]+)\]\((?!\w+:)([^)#\s]+)(#[^)]*)?\)", replace, source[0])


# What the theme and Sphinx write, and what axe asks for (make docs-check).
MENDED = {
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<aside class="toc-drawer': '<aside aria-label="On this page" class="toc-drawer',
    '<div id="search-results">': '<h1>Search</h1><div id="search-results">',
    '<th class="head"><p></p></th>': "<td></td>",
    "<p><img ": '<p class="picture" tabindex="0"><img ',  # on a phone they scroll, too
    "<pre>": '<pre tabindex="0">',  # so that keys scroll it
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
}
# The lines of a long signature: Sphinx has a list of definitions without terms.
SIGNATURE = re.compile(r"<dl>\n((?:<dd>.*</dd>\n)+)</dl>")


def mend(app: Sphinx, error: Exception | None) -> None:
    """Mend the pages that were written."""
    for file in app.outdir.rglob("*.html") if app.builder.format == "html" and not error else ():
        page = SIGNATURE.sub(
            lambda found: (
                found[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
            ),
            file.read_text(),
        )
        for old, new in MENDED.items():
            page = page.replace(old, new)
        file.write_text(page)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add what Sphinx does not have by itself."""
    app.connect("source-read", place_links)
    app.connect("build-finished", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
