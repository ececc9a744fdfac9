"""The documentation as a site: Sphinx reads the Markdown of this folder by MyST, furo shows it.

Pages link to each other as on a code host, by relative paths. A link to a file outside this folder
leads to the repository that pyproject.toml states; while it states none, the site has a copy.
"""

from __future__ import annotations

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


def lead_to_the_repository(app: Sphinx, name: str, source: list[str]) -> None:
    """Let the links of a page to files outside this folder lead to the repository, or to a copy."""

    def replace(link: re.Match[str]) -> str:
        text, target, anchor = link.groups()
        path = (app.srcdir / name).parent.joinpath(target).resolve()
        if path.is_relative_to(app.srcdir):
            return link[0]
        if REPOSITORY:
            return f"[{text}]({REPOSITORY}/blob/HEAD/{path.relative_to(CHECKOUT)}{anchor or ''})"
        return f"[{text}](path:{target})" if path.is_file() else text

    if name == "changelog":
        app.env.note_dependency(str(CHECKOUT / "CHANGELOG.md"))
        source[0] = re.sub(r"\]\((?!\w+:)", "](../", (CHECKOUT / "CHANGELOG.md").read_text())
    source[0] = re.sub(r"\[([^]\n]+)\]\((\.\./[^)#\s]+)(#[^)]*)?\)", replace, source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Add what Sphinx does not have by itself."""
    app.connect("source-read", lead_to_the_repository)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
