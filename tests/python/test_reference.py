"""The pages of the reference that are written by hand say what the program says.

(The others are made from the sources, and `make docs` fails if a public name is on none of them.)
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import greenlet
import greenlet._greenlet
import pytest
from helpers import VERSION

CHECKOUT = Path(__file__).parents[2]
PAGES = CHECKOUT / "docs" / "reference"


def variables(text: str) -> set[str]:
    return set(re.findall(r"\bGREENLET_[A-Z]+(?:_[A-Z]+)*\b", text))


def test_the_page_lists_each_variable_of_the_environment() -> None:
    """Those that are in the installed files: in the Python modules and the extension's strings."""
    package = Path(greenlet.__file__).parent
    known = variables("".join(file.read_text() for file in package.rglob("*.py")))
    known |= variables(Path(greenlet._greenlet.__file__).read_bytes().decode("latin-1"))
    assert {"GREENLET_STACK_SIZE", "GREENLET_USE_GC"} <= known
    page = (PAGES / "environment.md").read_text().partition("## When it is built")[0]
    assert variables(page) == known


def test_the_page_lists_each_option_of_the_build() -> None:
    if not (CHECKOUT / "CMakeLists.txt").exists():
        pytest.skip("the sources are not here")
    build = (CHECKOUT / "CMakeLists.txt").read_text()
    options = dict(re.findall(r"^option\((\w+) .* (ON|OFF)\)$", build, re.MULTILINE))
    assert len(options) > 3
    empty = re.findall(r'^set\((GREENLET_\w+) "" CACHE', build, re.MULTILINE)
    options |= dict.fromkeys(empty, "empty")
    page = (PAGES / "environment.md").read_text().partition("## When it is built")[2]
    listed = re.findall(r"^\| `(GREENLET_\w+)` \| `?(\w+)`? \|", page, re.MULTILINE)
    assert dict(listed) == options


@pytest.mark.parametrize("module", ["stacks", "inspect", "timeline"])
def test_the_page_of_a_module_has_each_of_its_public_names(module: str) -> None:
    page = (PAGES / f"{module}.md").read_text()
    blocks = re.findall(r"python-api:: greenlet\.\w+\n\n(.*?)```", page, re.DOTALL)
    public = importlib.import_module(f"greenlet.{module}").__all__
    assert sorted(" ".join(blocks).split()) == sorted(public)


def test_the_page_of_the_c_api_has_each_macro_of_the_header() -> None:
    page = (PAGES / "c-api.md").read_text()
    listed = set(" ".join(re.findall(r"c-api::\n\n(.*?)```", page, re.DOTALL)).split())
    header = Path(greenlet.get_include(), "greenlet", "greenlet.h").read_text()
    macros = set(re.findall(r"^#define (Py\w+)", header, re.MULTILINE))
    macros -= {"Py_GREENLETOBJECT_H", "PyGreenlet_CAPI_table"}
    assert len(macros) > 20
    assert {name for name in macros if not name.endswith("_NUM")} <= listed
    assert "*_NUM" in listed


def helps() -> list[tuple[str, str]]:
    """The commands of the page that print a help text, each with the text."""
    page = (PAGES / "command-line.md").read_text()
    command = r"^\$ python (-m greenlet(?: \w+)? --help)\n(.*?)^```"
    return re.findall(command, page, re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(VERSION < (3, 13), reason="argparse has formatted options in another way")
@pytest.mark.parametrize(("command", "text"), helps())
def test_the_page_has_the_help_text_of_each_command(command: str, text: str) -> None:
    said = subprocess.run(
        [sys.executable, *command.split()],
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert text.splitlines() == said.stdout.splitlines()


def test_the_page_has_every_command() -> None:
    from greenlet.__main__ import COMMANDS

    wanted = ["-m greenlet --help", *(f"-m greenlet {name} --help" for name in COMMANDS)]
    assert [command for command, _ in helps()] == wanted
