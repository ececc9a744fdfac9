"""The package's long description: README.md, without links that lead nowhere from a package index.

scikit-build-core calls dynamic_metadata() when it builds (tool.scikit-build of pyproject.toml).
Links of README.md are relative, as a code host and a checkout need them. Here they lead to the
repository that pyproject.toml states; while it states none, the words stay and the links go.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^]]+)\]\((?P<path>(?!\w+:|#)[^)\s]+)\)")


def independent(readme: str, repository: str | None) -> str:
    """Return the text with links that do not depend on the place where it is shown."""

    def replace(link: re.Match[str]) -> str:
        image, text, path = link.group("image", "text", "path")
        if repository:
            kind = "raw" if image else "blob"
            return f"{image}[{text}]({repository.rstrip('/')}/{kind}/HEAD/{path})"
        return "" if image else text

    return re.sub(r"\n{3,}", "\n\n", LINK.sub(replace, readme))


def dynamic_metadata(
    field: str, settings: Mapping[str, object], project: object = None
) -> dict[str, str]:
    """Return the field `readme`."""
    assert field == "readme" and not settings
    stated = tomllib.loads(Path("pyproject.toml").read_text())["project"].get("urls", {})
    readme = Path("README.md").read_text()
    text = independent(readme, stated.get("Repository"))
    return {"content-type": "text/markdown", "text": text}
