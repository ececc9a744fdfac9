"""The scripts of tests/contract as pytest tests: for plugins that watch a process from inside, as
the contract itself runs every script in a process of its own. Run it as `pytest THIS_FILE`."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path

import pytest

CONTRACT = Path(__file__).parents[2] / "contract"
sys.path.insert(0, str(CONTRACT))
behaviour = importlib.import_module("behaviour")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("script", [path.stem for path in sorted(CONTRACT.glob("scripts/*.py"))])
def test_all_behaviours_come_to_their_end(
    script: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    behaviour._registry.clear()  # scripts may have behaviours of the same name
    importlib.import_module(f"scripts.{script}")
    names = list(behaviour._registry)
    assert names
    monkeypatch.setattr(sys, "argv", [script])
    behaviour.run()
    said = capfd.readouterr().out.splitlines()
    assert set(names) == {line.partition(":")[0] for line in said} & set(names)
    assert threading.current_thread() is threading.main_thread()
