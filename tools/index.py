"""Write an index (PEP 503) of the wheels and the sdist in a folder, as pip and uv read it.

The folder can be served by any web server as it is, or used where it lies:
`pip install --index-url file:///FOLDER/simple greenlet`. Each link has the file's SHA-256, and the
Python that it asks for.
"""

import hashlib
import html
import sys
import tomllib
from pathlib import Path
from urllib.parse import quote

META = '<meta name="pypi:repository-version" content="1.0">'


def page(title: str, links: list[str]) -> str:
    """Return a page with links."""
    head = f'<head><meta charset="utf-8">{META}<title>{title}</title></head>'
    body = "".join(f"{link}<br>\n" for link in links)
    return f"<!DOCTYPE html>\n<html>\n{head}\n<body>\n{body}</body>\n</html>\n"


def write(folder: Path, python: str) -> Path:
    """Write FOLDER/simple; `python` is the requires-python of all files. Return that folder."""
    links = []
    for file in sorted([*folder.glob("greenlet-*.whl"), *folder.glob("greenlet-*.tar.gz")]):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        links.append(
            f'<a href="../../{quote(file.name)}#sha256={digest}"'
            f' data-requires-python="{html.escape(python)}">{html.escape(file.name)}</a>'
        )
    project = folder / "simple" / "greenlet"
    project.mkdir(parents=True, exist_ok=True)
    (project / "index.html").write_text(page("greenlet", links))
    (project.parent / "index.html").write_text(page("index", ['<a href="greenlet/">greenlet</a>']))
    return project.parent


if __name__ == "__main__":
    settings = tomllib.loads(Path(__file__).parent.with_name("pyproject.toml").read_text())
    print(write(Path(sys.argv[1]), settings["project"]["requires-python"]))
