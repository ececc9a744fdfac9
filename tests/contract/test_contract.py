"""Every behaviour of `scripts/`, on the published greenlet and on ours: both must say the same.

Where we differ on purpose the behaviour declares both transcripts in full, and
`docs/internals/ledger.md` gives the reason.
"""

from __future__ import annotations

import difflib
import sys

import pytest
from contract_runner import (
    CHECKOUT,
    Behaviour,
    CannotCompare,
    Deviation,
    Interpreter,
    all_behaviours,
    all_scripts,
    ours,
    published,
    run_script,
    transcript,
)

BEHAVIOURS = all_behaviours()
DEVIANT = [behaviour for behaviour in BEHAVIOURS if behaviour.deviations]
# On Windows the published greenlet ends by an access violation there.
CRASHES_ON_WINDOWS = ("c_api.switch_with_none_starts_without_arguments",)
DOCUMENT = CHECKOUT / "docs" / "internals" / "ledger.md"


@pytest.fixture(scope="session")
def interpreters() -> tuple[Interpreter, Interpreter]:
    """Ours and the published one."""
    try:
        return ours(), published()
    except CannotCompare as problem:
        reason = str(problem)
    pytest.fail(reason, pytrace=False)


def difference(one: tuple[str, ...], other: tuple[str, ...]) -> str:
    return "\n".join(difflib.unified_diff(one, other, "expected", "ours", lineterm="", n=50))


def crashes_so_on_windows(said: tuple[str, ...], deviation: Deviation) -> bool:
    """Whether it is a crash of the published greenlet: ctypes handles it first there."""
    return (
        sys.platform == "win32"
        and deviation.published == ("<ends with SIGSEGV>",)
        and any("access violation" in line for line in said)
    )


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.id)
def test_behaviour_agrees_with_the_published_one(
    behaviour: Behaviour, interpreters: tuple[Interpreter, Interpreter]
) -> None:
    tested, reference = interpreters
    said, expected = transcript(tested, behaviour), transcript(reference, behaviour)
    if sys.platform == "win32" and behaviour.id in CRASHES_ON_WINDOWS:
        assert expected[-1] == f"<ends with {0xC0000005}>"
        assert said and not said[-1].startswith("<ends with")
        return
    deviation = behaviour.deviation_on(tested.release_name)
    if deviation is not None:
        assert expected == deviation.published or crashes_so_on_windows(expected, deviation), (
            "the published greenlet is not as the deviation says:\n"
            + difference(deviation.published, expected)
        )
        expected = deviation.ours
    assert expected, "the behaviour says nothing, so it compares nothing"
    assert said == expected, "\n" + difference(expected, said)


@pytest.mark.parametrize("script", [path.stem for path in all_scripts()])
def test_script_ends_well(script: str, interpreters: tuple[Interpreter, Interpreter]) -> None:
    run = run_script(interpreters[0], script)
    assert not run.ending, f"all behaviours in one process: {run.ending}\n{run.complaints[-4000:]}"


def test_there_are_at_least_150_behaviours() -> None:
    assert len(BEHAVIOURS) >= 150


@pytest.mark.parametrize("behaviour", DEVIANT, ids=lambda behaviour: behaviour.id)
def test_deviation_differs_and_is_documented(behaviour: Behaviour) -> None:
    document = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    assert f"`{behaviour.id}`" in document, "docs/internals/ledger.md does not name it"
    for deviation in behaviour.deviations:
        assert deviation.ours != deviation.published, "a deviation that does not deviate"
        assert " ".join(deviation.reason.split()) in document, "its reason is not in the document"


def test_document_names_no_deviation_that_is_gone() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    deviant = {behaviour.id for behaviour in DEVIANT}
    settled = [one.id for one in BEHAVIOURS if f"`{one.id}`" in document and one.id not in deviant]
    assert not settled
