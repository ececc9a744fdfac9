"""What is measured, what it is called, what ours may take: for compare.py and report.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

PUBLISHED, OURS = "published", "ours"

# By side, then by name: one value for each round, in seconds or bytes.
Rounds = Mapping[str, Mapping[str, Sequence[float]]]


class Quantity(NamedTuple):
    """A row of the table: what is measured, and what ours may take of the published one's."""

    title: str
    bar: float | None = None
    is_bytes: bool = False


QUANTITIES = {
    "call": Quantity("a C method that does nothing"),
    "send": Quantity("a generator's send"),
    "asyncio": Quantity("an asyncio task switch"),
    "thread": Quantity("a thread switch"),
    "switch": Quantity("switch", 1 / 7),
    "switch_value": Quantity("switch with a value", 1 / 7),
    "switch_c_api": Quantity("switch by the C API, and ctypes"),
    "traced": Quantity("switch, traced"),
    "context": Quantity("switch, and read a context variable"),
    "throw": Quantity("throw, and catch it there", 1 / 2),
    "create": Quantity("create, run, finish", 1 / 25),
    "kill": Quantity("create, start, drop"),
    "deep_1": Quantity("switch, both 1 C call deep"),
    "deep_3": Quantity("switch, both 3 C calls deep"),
    "deep_10": Quantity("switch, both 10 C calls deep"),
    "deep_30": Quantity("switch, both 30 C calls deep"),
    "deep_50": Quantity("switch, both 50 C calls deep", 1 / 60),
    "deep_100": Quantity("switch, both 100 C calls deep"),
    "frames_1": Quantity("switch, both 1 Python call deep"),
    "frames_10": Quantity("switch, both 10 Python calls deep"),
    "frames_50": Quantity("switch, both 50 Python calls deep"),
    "frames_200": Quantity("switch, both 200 Python calls deep"),
    "frames_500": Quantity("switch, both 500 Python calls deep"),
    "alive_1": Quantity("switch among 1"),
    "alive_10": Quantity("switch among 10"),
    "alive_100": Quantity("switch among 100"),
    "alive_1000": Quantity("switch among 1,000"),
    "alive_10000": Quantity("switch among 10,000"),
    "alive_100000": Quantity("switch among 100,000"),
    "alive_1000000": Quantity("switch among 1,000,000"),
    "import": Quantity("import greenlet", 1.0),
    "first_switch": Quantity("the first start after it"),
    "trivial_start": Quantity("start and suspend, 100,000 alive", 1 / 1.5),
    "trivial_finish": Quantity("resume and finish, 100,000 alive"),
    "trivial_resident": Quantity("resident, trivial, 100,000 alive", 0.75, True),
    "trivial_memory": Quantity("with page tables", 1.5, True),
    "frames_resident": Quantity("resident, 20 Python frames deep", None, True),
    "frames_memory": Quantity("with page tables", None, True),
    "idle_30_resident": Quantity("resident, idle after 30 C calls", 1.0, True),
    "idle_120_resident": Quantity("resident, idle after 120 C calls", 1.0, True),
    "deepest_30_resident": Quantity("resident, in 30 C calls", None, True),
    "deepest_120_resident": Quantity("resident, in 120 C calls", None, True),
    "receive_resident": Quantity("resident, in gevent's recv()", None, True),
    "receive_memory": Quantity("with page tables", None, True),
    "million_start": Quantity("start and suspend, 1,000,000 alive"),
    "million_finish": Quantity("resume and finish, 1,000,000 alive"),
    "million_resident": Quantity("resident, 1,000,000 alive", None, True),
    "million_memory": Quantity("with page tables", None, True),
    "gevent_queue": Quantity("gevent: 2 greenlets, 2 queues", 1 / 1.3),
    "gevent_sleep": Quantity("gevent: 1,000 greenlets, sleep(0)", 1 / 1.3),
}


class Peer(NamedTuple):
    """A bar of ours against something else in the same run."""

    name: str
    against: str
    limit: float


PEERS = (
    Peer("switch", "send", 2.0),
    Peer("switch", "call", 2.5),
    Peer("deep_50", "deep_1", 1.2),
)


class Ratio(NamedTuple):
    """Of two series measured in the same rounds: the median of the ratios, and their extremes."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float], reference: Sequence[float]) -> Ratio:
        ratios = [a / b for a, b in zip(values, reference, strict=True)]
        return cls(median(ratios), min(ratios), max(ratios))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.lowest:.3g} to {self.highest:.3g})"


class Row(NamedTuple):
    """A line of a table of results."""

    title: str
    reference: str
    ours: str
    ratio: Ratio | None
    bar: float | None

    @property
    def met(self) -> bool:
        return self.bar is None or self.ratio is None or self.ratio.median <= self.bar

    @property
    def verdict(self) -> str:
        """What the bar says, and how it went; nothing without one."""
        if self.bar is None:
            return ""
        # As it is agreed: most bars are one so many-th.
        limit = f"1/{1 / self.bar:.3g}" if self.bar < 0.7 else f"{self.bar:.3g}"
        return f"<= {limit} {'pass' if self.met else 'FAIL'}"


def show(values: Sequence[float], *, is_bytes: bool) -> str:
    """Return the median, with its unit."""
    middle = median(values)
    if is_bytes:
        return f"{middle:,.0f} B"
    for unit, factor in (("ns", 1e9), ("µs", 1e6), ("ms", 1e3)):
        if middle * factor < 10_000:
            return f"{middle * factor:,.4g} {unit}"
    return f"{middle:,.3g} s"


def rows(rounds: Rounds) -> list[Row]:
    """The table against the published one; what does not switch greenlets has ours only."""
    table = []
    ours, published = rounds[OURS], rounds.get(PUBLISHED, {})
    for name, (title, bar, is_bytes) in QUANTITIES.items():
        if name not in ours:
            continue
        value = show(ours[name], is_bytes=is_bytes)
        if name in published:
            ratio = Ratio.of(ours[name], published[name])
            table.append(Row(title, show(published[name], is_bytes=is_bytes), value, ratio, bar))
        else:
            table.append(Row(title, "", value, None, None))
    return table


def peer_rows(rounds: Rounds) -> list[Row]:
    """The table of ours against other things."""
    ours = rounds[OURS]
    return [
        Row(
            f"{QUANTITIES[name].title} / {QUANTITIES[against].title}",
            show(ours[against], is_bytes=False),
            show(ours[name], is_bytes=False),
            Ratio.of(ours[name], ours[against]),
            limit,
        )
        for name, against, limit in PEERS
        if name in ours and against in ours
    ]
