"""Every code block of README.md and docs: it runs, and prints what the page says.

The python blocks of a page are one program, in order. A comment on the line before a block says
what is different:

    <!-- file: NAME -->        a file of this name beside the page's program, run by itself
    <!-- needs: MODULE -->     a program by itself, which runs where the module is installed
    <!-- output -->            what the python block before has printed
    <!-- not run: REASON -->   not run

Console blocks have commands after "$ ", and what they print. Those that run a file of the page, or
one of examples/, are run; a block with another command says why it is not. In outputs "..." stands
for anything. TOML has to be TOML.
"""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from importlib.metadata import metadata, version
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from helpers import TIME_SCALE

CHECKOUT = Path(__file__).parents[2]
PAGES = [page for page in (CHECKOUT / "README.md", *CHECKOUT.glob("docs/**/*.md")) if page.exists()]
FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>[\w-]*)\n(?P<text>.*?)^(?P=indent)(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
MARKS = re.compile(r"<!-- (.+) -->\n\s*\Z")
SEPARATOR = "-- the next block --"
SHELLS = ("console", "sh", "bash", "shell")


class Block(NamedTuple):
    language: str
    text: str
    line: int  # of the page; of the first line of the text
    marks: dict[str, str]


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    found = []
    for fence in FENCE.finditer(page):
        marks = {}
        if comment := MARKS.search(page, 0, fence.start()):
            for mark in comment[1].split(", "):
                name, _, value = mark.partition(": ")
                marks[name] = value
            if "not run" in marks:
                marks = {"not run": comment[1].partition(": ")[2]}
        line = page.count("\n", 0, fence.start("text")) + 1
        found.append(Block(fence["language"], textwrap.dedent(fence["text"]), line, marks))
    return found


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, each with what it prints."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    return [(first, rest) for first, _, rest in (part.partition("\n") for part in parts)]


def runs(command: str, folder: Path) -> bool:
    """Whether a command of a console block can run: python, with a file that is there."""
    first, *rest = shlex.split(command)
    return first == "python" and any(
        (folder / word).is_file() or (CHECKOUT / word).is_file() for word in rest
    )


def execute(*arguments: str, folder: Path) -> str:
    """Run python in a folder of its own, and return what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60 * TIME_SCALE,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def compare(page: str, line: int, wanted: str, got: str) -> None:
    """The output is what the page says."""
    same = doctest.OutputChecker().check_output(
        wanted.rstrip() + "\n", got.rstrip() + "\n", doctest.ELLIPSIS
    )
    assert same, f"{page}:{line}: the page says\n{wanted}\nbut this is printed\n{got}"


def program(parts: list[Block]) -> str:
    """One program of several blocks, each on the lines that it has in the page."""
    lines: list[str] = []
    for part in parts:
        if lines:
            lines.append(f"print({SEPARATOR!r})")
        lines += [""] * (part.line - 1 - len(lines))
        lines += part.text.splitlines()
    return "\n".join(lines) + "\n"


def check(name: str, text: str, folder: Path) -> None:
    """Run all that can be run of a page."""
    found = blocks(text)
    files = [block for block in found if "file" in block.marks]
    for block in files:
        (folder / block.marks["file"]).write_text(block.text)
    together = [
        block
        for block in found
        if block.language == "python" and not block.marks.keys() & {"file", "needs", "not run"}
    ]
    printed: dict[int, str] = {}  # by the line of the block
    if together:
        path = folder / f"{Path(name).stem}_page.py"
        path.write_text(program(together))
        outputs = execute(path.name, folder=folder).split(f"{SEPARATOR}\n")
        printed.update(zip((block.line for block in together), outputs, strict=True))
    started = set()
    for block in found:
        if "not run" in block.marks or not has(block.marks.get("needs", "")):
            continue
        if "needs" in block.marks and "file" not in block.marks and block.language == "python":
            path = folder / f"{Path(name).stem}_{block.line}.py"
            path.write_text(program([block]))
            printed[block.line] = execute(path.name, folder=folder)
        if block.language in SHELLS:
            for command, wanted in commands(block):
                if runs(command, folder):
                    words = shlex.split(command)[1:]
                    started.update(words)
                    paths = [CHECKOUT / word for word in words]
                    words = [
                        str(p) if p.is_file() else word
                        for p, word in zip(paths, words, strict=True)
                    ]
                    compare(name, block.line, wanted, execute(*words, folder=folder))
    for block in files:
        path = folder / block.marks["file"]
        if path.suffix == ".py" and path.name not in started and has(block.marks.get("needs", "")):
            printed[block.line] = execute(path.name, folder=folder)
    last = 0
    for block in found:
        if "output" in block.marks and last in printed:
            compare(name, block.line, block.text, printed[last])
        elif block.language == "python":
            last = block.line
        elif block.language == "toml":
            tomllib.loads(block.text)


def has(module: str) -> bool:
    return not module or importlib.util.find_spec(module) is not None


def unexplained(text: str, folder: Path) -> Iterator[str]:
    """Blocks that are not run, and do not say why."""
    found = blocks(text)
    for block in found:
        if path := block.marks.get("file"):
            (folder / path).write_text(block.text)
    for block in found:
        if block.language in SHELLS and not block.marks.get("not run"):
            for command, _ in commands(block) or [(block.text, "")]:
                if not runs(command, folder):
                    yield f"line {block.line}: {command}"
        elif block.marks.get("not run") == "":
            yield f"line {block.line}"


IDS = [page.relative_to(CHECKOUT).as_posix() for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_the_blocks_of_a_page_run_and_print_what_it_says(page: Path, tmp_path: Path) -> None:
    check(page.name, page.read_text(), tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_a_page_says_why_a_block_is_not_run(page: Path, tmp_path: Path) -> None:
    assert list(unexplained(page.read_text(), tmp_path)) == []


def test_pages_name_the_version_that_this_is() -> None:
    named = {
        found for page in PAGES for found in re.findall(r"\b[\d.]+\+ownstacks", page.read_text())
    }
    assert named <= {version("greenlet")}


# --- the long description of the package ---------------------------------------------------------

RELATIVE = re.compile(r"\]\((?!https?:|#)")


def test_the_long_description_has_no_relative_links() -> None:
    text = metadata("greenlet").json["description"]
    assert isinstance(text, str) and "call stack of its own" in text
    assert not RELATIVE.search(text)


def long_description() -> ModuleType:
    path = CHECKOUT / "tools" / "long_description.py"
    if not path.exists():
        pytest.skip("it needs a checkout")
    spec = importlib.util.spec_from_file_location("long_description", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SAMPLE = (
    "![a plot](docs/a.svg)\n\nSee [this](docs/a.md#b), [that](https://example.org) and [it](#here)."
)


def test_links_lead_to_the_repository_that_is_stated() -> None:
    text = long_description().independent(SAMPLE, "https://example.org/greenlet/")
    assert "![a plot](https://example.org/greenlet/raw/HEAD/docs/a.svg)" in text
    assert "[this](https://example.org/greenlet/blob/HEAD/docs/a.md#b)" in text
    assert "[that](https://example.org) and [it](#here)." in text


def test_without_a_repository_the_words_stay() -> None:
    text = long_description().independent(SAMPLE, None)
    assert text.strip() == "See this, [that](https://example.org) and [it](#here)."


# --- and the checks find what is wrong ------------------------------------------------------------

GOOD = """
```python
def double(x):
    return x * 2
```

```python
print(double(21), object())
```

<!-- output -->
```
42 <object object at 0x...>
```

<!-- file: hello.py -->
```python
import sys
print("hello", *sys.argv[1:])
```

```console
$ python hello.py you
hello you
$ python hello.py
hello
```

<!-- needs: no_module_has_this_name -->
```python
import no_module_has_this_name
```

<!-- not run: it needs the moon, and more -->
```console
$ fly
```
"""


def test_a_page_that_is_right(tmp_path: Path) -> None:
    check("good.md", GOOD, tmp_path)
    assert list(unexplained(GOOD, tmp_path)) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("x * 2", "x * 3", "but this is printed"),
        ("double(21)", "double(21)(1)", 'good_page.py", line 8'),
        ("\nhello\n", "\nhallo\n", "but this is printed"),
        ("import sys\n", "import sis\n", "No module named 'sis'"),
        ("needs: no_module_has_this_name", "needs: sys", "No module named 'no_module_has"),
    ],
)
def test_a_block_that_is_wrong(old: str, new: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=re.escape(fault)):
        check("good.md", GOOD.replace(old, new), tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [("<!-- not run: it needs the moon, and more -->\n", ""), ("python hello.py you", "hello")],
)
def test_a_block_that_is_not_run_without_a_reason(old: str, new: str, tmp_path: Path) -> None:
    assert len(list(unexplained(GOOD.replace(old, new), tmp_path))) == 1
