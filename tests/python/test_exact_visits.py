"""The collector finds each reference of a suspended greenlet once: wherever it can be left.

exact_visits.py is the machine, visit_cases.py the shapes of code, tests/extensions/visits.c what
counts. `make exact-visits` runs all of it on all interpreters and prints the table of
docs/internals/garbage-collection.md. The first test here has a new seed each time, which it prints;
VISITS_SEED in the environment gives the seed.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
from itertools import repeat
from pathlib import Path
from typing import Any

import greenlet as library
import pytest
from exact_visits import compiles
from helpers import TIME_SCALE, VERSION
from visit_cases import (
    GIVES_AWAY,
    Shape,
    expressions_for_any,
    fill,
    of_expression,
    of_statements,
    statements_for_any,
)

COMPILE = Path(__file__).parent.parent / "extensions" / "compile.py"
MACHINE = Path(__file__).with_name("exact_visits.py")

# From 3.14 on the interpreter says where a value stack ends, so only C functions hide references.
NOTHING_IS_HIDDEN = VERSION >= (3, 14)


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    headers = Path(library.__file__).parent.parent
    folder = tmp_path_factory.mktemp("extensions")
    done = subprocess.run(
        [sys.executable, COMPILE, "visits.c", headers, folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def run(extension: Path, *arguments: str, timeout: float = 110.0) -> Any:
    """What the machine found, as it says itself."""
    progress = extension.with_name("progress")
    command = [sys.executable, "-X", "faulthandler", MACHINE, extension, "--progress", progress]
    done = subprocess.run(
        [*map(str, command), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout * TIME_SCALE,
        check=False,
    )
    print(done.stdout.partition("\n")[0])  # the seed
    if done.returncode not in (0, 1) or not done.stdout.endswith("}\n"):
        pytest.fail(f"{done.stdout}\n{done.stderr}\nin\n{progress.read_text()}")
    return json.loads(done.stdout.splitlines()[-1])


def check(result: Any) -> None:
    assert result["faults"] == [], f"seed {result['seed']}:\n" + "\n".join(result["faults"])
    assert sum(total["switches"] for total in result["modes"].values()) > 0
    if NOTHING_IS_HIDDEN:
        for mode in ("cold", "specialized", "traced", "specialized, traced"):
            total = result["modes"].get(mode)
            assert total is None or total["short_unexplained"] == 0, (mode, result["seed"])


def test_every_shape_shows_each_reference_once_and_so_do_some_at_random(extension: Path) -> None:
    seed = os.environ.get("VISITS_SEED") or str(random.SystemRandom().randrange(1 << 32))
    check(run(extension, "--seed", seed, "--seconds", "2"))


@pytest.mark.stress
def test_every_shape_shows_each_reference_once_at_each_opcode(extension: Path) -> None:
    check(run(extension, "--full", "--seconds", "120", timeout=3500))


@pytest.mark.parametrize("name", GIVES_AWAY)
def test_what_an_instruction_has_given_away_is_not_shown(extension: Path, name: str) -> None:
    only = f"^{re.escape(name)} \\["
    check(run(extension, "--full", "--modes", "specialized", "--only", only))


# --- the machine itself -----------------------------------------------------------------------


def test_what_stands_at_random_in_other_code_can_stand_there() -> None:
    texts = expressions_for_any(in_c=False) + expressions_for_any(in_c=True)
    sources = [of_expression(fill(text, repeat("'ab'"))) for text in texts]
    sources += [of_statements(fill(text, repeat("'ab'"))) for text in statements_for_any().values()]
    for text in texts:
        inside = f"({fill(text, repeat('P()'))})"
        sources.append(of_expression(f"[({inside}, x) for x in {inside}]"))
    for source in sources:
        compiles(Shape("of two", source))


class Probe:
    pass


@pytest.fixture(scope="module")
def visits(extension: Path) -> Any:
    spec = importlib.util.spec_from_file_location("visits", extension)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.learn()
    return module


def test_the_machine_finds_a_visit_too_many(visits: Any) -> None:
    held = [Probe()]
    gc.disable()  # debug builds end the process in a collection that finds this
    try:
        liar = visits.lie(held[0], 2)  # three visits, two references
        wrong = visits.look(Probe, False)[2]
        del liar
    finally:
        gc.enable()
    assert [(text, thing) for text, thing, *_ in wrong] == [("too many visits", held[0])]
    assert wrong[0][2:4] == (2, 3)
    del wrong
    assert visits.look(Probe, True)[2] == []


def test_the_machine_finds_a_visit_too_few(visits: Any) -> None:
    held = [Probe()]
    liar = visits.lie(held[0], 0)
    _, _, wrong, probes, missing, hidden, *_ = visits.look(Probe, True)
    assert (wrong, probes, missing, hidden) == ([], 1, 1, held)
    del hidden, liar
    assert visits.look(Probe, True)[3:5] == (1, 0)


def test_a_look_leaves_the_collector_as_it_was(visits: Any) -> None:
    cycle: Any = Probe()
    cycle.itself = cycle
    visits.look(Probe, False)
    assert gc.is_tracked(cycle)
    del cycle
    assert visits.look(Probe, False)[3] == 1
    gc.collect()
    assert visits.look(Probe, False)[3] == 0
