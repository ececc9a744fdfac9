"""What profilers and debuggers show of greenlets, from the results of tests/interop/test_tools.py.

Kept in tests/interop/results/tools, one file for each interpreter.
"""

import json
from typing import Any

from .environment import SIDES
from .results import FOLDER

KEPT = FOLDER / "tools"


def _cell(shown: dict[str, Any], side: str, what: str) -> str:
    if side not in shown:
        return "no wheel"
    return {True: "yes", False: "no", None: "–"}[shown[side].get(what)]


def table() -> str:
    """Return all that was kept as a table."""
    kept = {
        file.stem: json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(KEPT.glob("*.json"))
    }
    heads = [f"{name}, {side}" for name in kept for side in SIDES]
    lines = [f"| tool | what it shows | {' | '.join(heads)} |", "| --- " * (2 + len(heads)) + "|"]
    for tool in dict.fromkeys(tool for found in kept.values() for tool in found):
        columns = [found.get(tool, {}) for found in kept.values()]
        version = next((each["version"] for each in columns if each.get("version")), "")
        facts = [what for each in columns for side in SIDES for what in each.get(side, ())]
        for what in dict.fromkeys(facts):
            cells = [_cell(each, side, what) for each in columns for side in SIDES]
            lines.append(f"| {tool} {version} | {what} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])
