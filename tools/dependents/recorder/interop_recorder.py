"""A plugin of pytest's that writes down how each test goes, as sitecustomize.py does for unittest.

What is in the file that INTEROP_DONE names has been run before, by a pytest that did not come to
its end, and is left out.
"""

import os
from pathlib import Path

import pytest


class Recorder:
    """Appends lines to the file that INTEROP_RECORD names."""

    def __init__(self, file: Path) -> None:
        self._file = open(file, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def _write(self, outcome: str, test: str) -> None:
        self._file.write(f"{outcome}\t{test}\n".replace("\0", "?"))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write("started", nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._write("failed", report.nodeid)
        elif hasattr(report, "wasxfail"):
            self._write("passed", report.nodeid)  # it failed as expected
        elif report.skipped:
            self._write("skipped", report.nodeid)
        elif report.when == "call":
            self._write("passed", report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write("failed", f"{report.nodeid} (collection)")


def pytest_configure(config: pytest.Config) -> None:
    """Record, but not in the workers of pytest-xdist: their controller hears of every test."""
    record = os.environ.get("INTEROP_RECORD")
    if record and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(Path(record)), "interop-recorder-file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has been run before."""
    file = Path(os.environ.get("INTEROP_DONE", os.devnull))
    done = set(file.read_text(encoding="utf-8").splitlines())
    left_out = [item for item in items if item.nodeid in done]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.nodeid not in done]
