#!/usr/bin/env python3
"""Write docs/internals/performance.md and its plots from what compare.py and others have kept.

    python benchmarks/report.py RESULTS PAGE.md [--front PLOT.svg]

RESULTS has one NAME.json of compare.py for each interpreter (3.14.json, ...), scaling-NAME.json of
scaling.py, and native.json of the C++ benchmarks, as far as they were run. The plots go into the
folder PAGE, beside the page; PLOT.svg is the one that README.md shows. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import front_plot
import matplotlib
from bars import OURS, PUBLISHED, QUANTITIES, Rounds, Row, peer_rows, rows
from matplotlib import pyplot
from matplotlib.axes import Axes

COLORS = {OURS: "#1f6f8b", PUBLISHED: "#c8553d"}
LABELS = {OURS: "ours", PUBLISHED: "published"}
GREY = "#8a8f98"


class Result(NamedTuple):
    """What compare.py has kept of one interpreter."""

    name: str
    interpreter: str
    greenlet: dict[str, str]
    machine: dict[str, str]
    date: str
    rounds: Rounds

    @classmethod
    def load(cls, file: Path) -> Result:
        kept = json.loads(file.read_text())
        return cls(
            file.stem,
            kept["interpreter"].split("(")[0].strip(),
            kept["greenlet"],
            kept["machine"],
            kept["date"],
            kept["rounds"],
        )

    def median(self, side: str, name: str) -> float | None:
        values = self.rounds.get(side, {}).get(name)
        return median(values) if values else None


def points(result: Result, side: str, prefix: str) -> list[tuple[int, float, float, float]]:
    """Numbers behind `prefix`, and for each the median and the extremes in nanoseconds."""
    found = []
    for name, values in result.rounds.get(side, {}).items():
        if match := re.fullmatch(rf"{prefix}_(\d+)", name):
            found.append(
                (int(match[1]), median(values) * 1e9, min(values) * 1e9, max(values) * 1e9)
            )
    return sorted(found)


# --- plots -----------------------------------------------------------------------------------


class Plots:
    """Draws into files of one folder; remembers what there is to show."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        matplotlib.use("svg")
        # The same file for the same data: no random identifiers, no date.
        matplotlib.rcParams["svg.hashsalt"] = "greenlet"
        pyplot.style.use("seaborn-v0_8-whitegrid")
        pyplot.rcParams.update({"font.size": 10, "axes.titlesize": 11, "figure.dpi": 100})

    def save(self, name: str, text: str) -> str:
        """Keep the current figure; return the line of Markdown that shows it."""
        pyplot.tight_layout()
        pyplot.savefig(self._folder / f"{name}.svg", metadata={"Date": None})
        pyplot.close()
        return f"![{text}]({self._folder.name}/{name}.svg)\n"

    def lines(self, result: Result, prefix: str, name: str, title: str, label: str) -> str:
        """Time of a switch against the number in the benchmark's name, both sides."""
        drawn = {side: points(result, side, prefix) for side in (PUBLISHED, OURS)}
        if not drawn[OURS]:
            return ""
        axes: Axes = pyplot.subplots(figsize=(7, 4))[1]
        for side, series in drawn.items():
            if series:
                x, middle, low, high = zip(*series, strict=True)
                axes.plot(x, middle, "o-", color=COLORS[side], label=LABELS[side])
                axes.fill_between(x, low, high, color=COLORS[side], alpha=0.2, linewidth=0)
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel="ns per switch", title=title)
        axes.legend()
        return self.save(name, title)

    def memory(self, result: Result) -> str:
        """Resident memory and page tables, stacked."""
        kinds = {
            "trivial": "a trivial function",
            "frames": "20 Python frames",
            "receive": "gevent's recv()",
        }
        kinds = {
            name: text for name, text in kinds.items() if result.median(OURS, f"{name}_memory")
        }
        if not kinds:
            return ""
        axes: Axes = pyplot.subplots(figsize=(7, 4))[1]
        for number, name in enumerate(kinds):
            for offset, side in ((-0.2, PUBLISHED), (0.2, OURS)):
                resident = result.median(side, f"{name}_resident")
                total = result.median(side, f"{name}_memory")
                if resident is None or total is None:
                    continue
                first = number == 0
                axes.bar(
                    *(number + offset, resident, 0.36),
                    color=COLORS[side],
                    label=f"{LABELS[side]}, resident" if first else None,
                )
                axes.bar(
                    *(number + offset, total - resident, 0.36),
                    bottom=resident,
                    color=COLORS[side],
                    alpha=0.4,
                    label=f"{LABELS[side]}, page tables" if first else None,
                )
        axes.set_xticks(range(len(kinds)), list(kinds.values()))
        title = "Memory of one suspended greenlet"
        axes.margins(y=0.3)  # room for the legend
        axes.set(ylabel="bytes", title=title)
        axes.legend()
        return self.save("memory", title)

    def peers(self, result: Result) -> str:
        """A switch beside other ways to leave a computation and come back."""
        bars = [
            ("a C method that does nothing", result.median(OURS, "call"), GREY),
            ("generator send", result.median(OURS, "send"), GREY),
            ("switch, ours", result.median(OURS, "switch"), COLORS[OURS]),
            ("switch, published", result.median(PUBLISHED, "switch"), COLORS[PUBLISHED]),
            ("asyncio task switch", result.median(OURS, "asyncio"), GREY),
            ("thread switch", result.median(OURS, "thread"), GREY),
        ]
        known = [(text, value * 1e9, color) for text, value, color in bars if value is not None]
        if len(known) < 2:
            return ""
        axes: Axes = pyplot.subplots(figsize=(7, 3))[1]
        texts, values, colors = zip(*known, strict=True)
        drawn = axes.barh(texts, values, color=colors)
        axes.bar_label(drawn, [f"{value:,.0f} ns" for value in values], padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        title = f"One way of a switch, and its peers ({result.interpreter})"
        axes.set(xscale="log", xlabel="ns", title=title)
        return self.save("peers", title)

    def ratios(self, results: Sequence[Result]) -> str:
        """How many times as fast ours is, by interpreter."""
        names = ["switch", "switch_value", "throw", "create", "kill", "traced", "context"]
        axes: Axes = pyplot.subplots(figsize=(7, 4))[1]
        height = 0.8 / len(results)
        shades = pyplot.get_cmap("viridis")
        for number, result in enumerate(results):
            values = []
            for name in names:
                ours, published = result.median(OURS, name), result.median(PUBLISHED, name)
                values.append(published / ours if ours and published else 0.0)
            axes.barh(
                [index + number * height for index in range(len(names))],
                values,
                height,
                label=result.name,
                color=shades(0.15 + 0.7 * number / max(1, len(results) - 1)),
            )
        axes.set_yticks(
            [index + 0.4 - height / 2 for index in range(len(names))],
            [QUANTITIES[name].title for name in names],
        )
        axes.invert_yaxis()
        title = "Times as fast as the published greenlet"
        axes.set(xscale="log", title=title)
        axes.axvline(1, color="black", linewidth=0.8)
        axes.legend(title="CPython")
        return self.save("ratios", title)


# --- the page --------------------------------------------------------------------------------


def table(headings: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    marks = ["---", *["---:"] * (len(headings) - 1)]
    all_lines = [headings, marks, *lines]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in all_lines) + "\n"


def cells(row: Row) -> list[object]:
    return [row.title, row.reference, row.ours, row.ratio or "", row.verdict]


def results_section(result: Result) -> str:
    heading = ["", "published", "ours", "ratio (spread)", "bar"]
    parts = [
        f"### CPython {result.interpreter}\n",
        table(heading, list(map(cells, rows(result.rounds)))),
    ]
    if peers := peer_rows(result.rounds):
        heading = ["ours / another thing in the same run", "the other", "ours", "ratio", "bar"]
        parts.append(table(heading, list(map(cells, peers))))
    return "\n".join(parts)


def native_section(file: Path) -> str:
    """Our context switch against Boost.Context: medians of interleaved repetitions."""
    if not file.exists():
        return ""
    kept = json.loads(file.read_text())
    found: dict[str, float] = {
        each["run_name"]: each["cpu_time"]
        for each in kept["benchmarks"]
        if each.get("aggregate_name") == "median"
    }
    lines: list[list[object]] = []
    for name, time in found.items():
        peer = found.get(f"boost_{name}")
        if peer is not None:
            verdict = ""
            if "round_trip" in name:
                verdict = f"<= 1.1 {'pass' if time / peer <= 1.1 else 'FAIL'}"
            lines.append([name, f"{peer:.2f} ns", f"{time:.2f} ns", f"{time / peer:.2f}", verdict])
    return "\n".join(
        [
            "## Without Python\n",
            "Two switches of `src/context` against two of Boost.Context's fibers, in C++. In the "
            "symmetric ones both sides switch at the end of the same chain of calls, as greenlets "
            "do; the number is how many.\n",
            table(["", "Boost.Context", "ours", "ratio", "bar"], lines),
        ]
    )


def scaling_section(files: Sequence[Path]) -> str:
    parts = []
    for file in files:
        kept: dict[str, dict[str, dict[str, float]]] = json.loads(file.read_text())
        lines = [
            [
                f"{workload}, {LABELS[side]}",
                *(f"{each[number] / 1e6:.2f}" for number in ("alone", "together")),
                f"{each['together'] / each['alone']:.2f}",
            ]
            for side, workloads in kept.items()
            for workload, each in workloads.items()
        ]
        parts.append(f"CPython {file.stem.removeprefix('scaling-')}:\n")
        heading = ["million operations a second", "1 thread", "2 threads", "scale"]
        parts.append(table(heading, lines))
    if not parts:
        return ""
    text = (
        "What two threads do together on a free-threaded build, each with greenlets of its own; "
        "generators beside them show what the machine and CPython allow.\n"
    )
    return "\n".join(["## Threads\n", text, *parts])


def million_section(results: Sequence[Result]) -> str:
    lines: list[list[object]] = []
    for result in results:
        for side in (PUBLISHED, OURS):
            values: list[Any] = [
                result.median(side, f"million_{part}")
                for part in ("start", "finish", "resident", "memory")
            ]
            if None not in values:
                # kept for each of them, in seconds and bytes
                start, finish, resident, total = (value * 1_000_000 for value in values)
                lines.append(
                    [
                        f"{result.name}, {LABELS[side]}",
                        *(f"{start:.2f} s", f"{finish:.2f} s"),
                        *(f"{resident / 2**30:.2f} GiB", f"{total / 2**30:.2f} GiB"),
                    ]
                )
    if not lines:
        return ""
    headings = ["", "start all", "resume and finish all", "resident", "with page tables"]
    return "\n".join(["## A million at once\n", table(headings, lines)])


def representative(results: Sequence[Result]) -> Result:
    """The interpreter that the plots show."""
    return next((each for each in results if each.name == "3.14"), results[0])


def front(result: Result) -> str:
    """The plot of front_plot.py."""
    drawn = {
        side: [(number, time) for number, time, _, _ in points(result, side, "deep")]
        for side in (PUBLISHED, OURS)
    }
    return front_plot.draw(result.interpreter, drawn[PUBLISHED], drawn[OURS])


def page(results: Sequence[Result], folder: Path, plots: Plots) -> str:
    shown = representative(results)
    figures = [
        plots.ratios(results),
        plots.peers(shown),
        plots.lines(
            *(shown, "deep", "depth-c", "A switch does not depend on the depth of C calls"),
            "C calls that both sides are deep",
        ),
        plots.lines(
            *(shown, "frames", "depth-python", "A switch by the depth of Python calls"),
            "Python calls that both sides are deep",
        ),
        plots.lines(
            *(shown, "alive", "alive", "A switch by the number of greenlets, resumed in turn"),
            "greenlets alive",
        ),
        plots.memory(shown),
    ]
    machine = shown.machine
    intro = (
        f"Measured on {shown.date} by `make bench` ([how](../../benchmarks/README.md)) on one "
        f"machine: {machine['processor']}; {machine['memory']}; {machine['kernel']}. greenlet "
        f"{shown.greenlet[OURS]} (ours) against {shown.greenlet[PUBLISHED]} (published) on the "
        "same interpreter, process after process in turn. A ratio is ours divided by the published "
        "one within a round: the median of all rounds, with the lowest and the highest. Times hold "
        "for this machine only; ratios are what to look at. The page is written by "
        "`benchmarks/report.py` from the measurements in `benchmarks/results`.\n"
    )
    return "\n".join(
        [
            "# Performance\n",
            intro,
            *filter(None, figures),
            "## By interpreter\n",
            *map(results_section, results),
            *filter(
                None,
                [
                    million_section(results),
                    scaling_section(sorted(folder.glob("scaling-*.json"))),
                    native_section(folder / "native.json"),
                ],
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the page on performance, with its plots.")
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--front", type=Path)
    options = parser.parse_args()
    folder: Path = options.results
    written: Path = options.page
    results = [Result.load(file) for file in sorted(folder.glob("[0-9]*.json"))]
    if not results:
        parser.error(f"no results in {folder}")
    text = page(results, folder, Plots(written.with_suffix("")))
    written.write_text(text.rstrip() + "\n")
    if options.front:
        options.front.write_text(front(representative(results)))


if __name__ == "__main__":
    main()
