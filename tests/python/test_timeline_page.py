"""The page of a recording, in a headless browser: what it shows, and how it is moved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, find
from greenlet import getcurrent, greenlet, inspect, timeline
from helpers import FREE_THREADED, TIME_SCALE, VERSION, collect, in_thread, to_parent

pytestmark = [
    pytest.mark.skipif(find() is None, reason="there is no Chromium"),
    pytest.mark.skipif(
        VERSION != (3, 14) or FREE_THREADED or TIME_SCALE > 1,
        reason="the page does not depend on the interpreter; 3.14 is enough",
    ),
]

READY = "window.timeline && timeline.lastFrame !== undefined"
NAMES, RULER, THREAD_ROW, ROW = 250, 24, 40, 20  # of lanes.js
HOSTILE = '</script><img src=x onerror="window.hacked = 1"><script>window.hacked = 1</script>'


def work(turns: int = 3) -> None:
    for _ in range(turns):
        to_parent()


def other(turns: int = 3) -> None:
    work(turns)


def fails() -> None:
    to_parent()
    raise KeyError


def small() -> timeline.Recording:
    """Twelve greenlets `work`, an `other`, one with a hostile name, one that fails; two threads."""
    collect()
    with timeline.record() as recording:
        family = [greenlet(work) for _ in range(12)] + [greenlet(other), greenlet(other)]
        inspect.set_name(family[-1], HOSTILE)
        bad = greenlet(fails)
        for _ in range(3):
            for g in (*family, bad):
                try:
                    if not g.dead:
                        g.switch()
                except KeyError:
                    pass
            time.sleep(0.005)
        for g in family:
            g.switch()
        in_thread(lambda: greenlet(work).switch(1))
    recording.title = "small & <b>"
    return recording


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as started:
        yield started


@pytest.fixture(scope="module")
def small_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "small.html"
    small().save(path)
    return path


@pytest.fixture
def page(browser: Browser, small_page: Path) -> Iterator[Browser]:
    browser.open(small_page, READY)
    yield browser
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert browser.evaluate("window.hacked") is None


def rows(page: Browser) -> list[str]:
    found: list[str] = page.evaluate("timeline.rows.map(row => timeline.title(row))")
    return found


def top(page: Browser) -> float:
    found: float = page.evaluate("timeline.chart.getBoundingClientRect().top")
    return found


def middle_of(page: Browser, name: str) -> float:
    """Where the row with this name is, in pixels from the top of the window."""
    y: float = page.evaluate(
        f"""(() => {{
            const row = timeline.rows.find(row => timeline.title(row) === {name!r});
            return timeline.painter.top(row) + row.height / 2;
        }})()"""
    )
    return top(page) + y


def view(page: Browser) -> tuple[float, float]:
    begin, end = page.evaluate("[timeline.from, timeline.to]")
    return begin, end


def details(page: Browser) -> str:
    text: str = page.evaluate("document.getElementById('details').innerText")
    return text


def pixel(page: Browser, x: float, y: float) -> list[int]:
    """The colour that the chart has at a place of the window."""
    found: list[int] = page.evaluate(
        f"""(() => {{
            const canvas = timeline.chart, box = canvas.getBoundingClientRect();
            const data = canvas.getContext("2d").getImageData({x} - box.left, {y} - box.top, 1, 1);
            return [...data.data.slice(0, 3)];
        }})()"""
    )
    return found


def x_of(page: Browser, expression: str) -> float:
    x: float = page.evaluate(
        f"timeline.painter.x({expression}) + timeline.chart.getBoundingClientRect().left"
    )
    return x


# --- what it shows --------------------------------------------------------------------------------


def test_the_heading_counts(page: Browser) -> None:
    assert page.evaluate("document.title") == "small & <b> – greenlets"
    assert page.evaluate("document.querySelector('h1').textContent") == "small & <b>"
    summary = page.evaluate("document.getElementById('summary').textContent")
    # Four times to 14 and back; twice to the one that fails, and to the one in the thread.
    assert summary.startswith("120 switches · 18 greenlets · 2 threads · ")


def test_rows_are_threads_and_groups_and_greenlets(page: Browser) -> None:
    found = rows(page)
    assert found[:6] == ["MainThread", "main", "work", "other", HOSTILE, "fails"]
    assert found[6].startswith("Thread-")
    assert found[7:] == ["main", "work"]
    kinds = page.evaluate("timeline.rows.map(row => row.kind)")
    assert kinds[:6] == ["thread", "greenlet", "group", "greenlet", "greenlet", "greenlet"]


def test_the_model_is_the_recording(page: Browser, small_page: Path) -> None:
    runs = page.evaluate("timeline.model.threads.map(thread => thread.count)")
    assert sum(runs) == 120 + 2  # each thread has one more run than switches
    wrong = page.evaluate(
        """timeline.model.threads.filter(thread =>
             thread.start.some((time, k) => k && time < thread.start[k - 1])).length"""
    )
    assert wrong == 0
    finished = page.evaluate("[...timeline.model.flags].filter(one => one & HAS_FINISHED).length")
    assert finished == 16


def test_blocks_have_the_colours_of_their_functions(page: Browser) -> None:
    colours = page.evaluate(
        """['work', 'other'].map(name => timeline.painter.colorOf(
             timeline.model.groups.find(group => group.name === name).members[0]))"""
    )
    assert len(set(colours)) == 2
    # Zoomed to a run, its row is all of its colour.
    page.evaluate(
        """(() => {
            const g = timeline.model.groups.find(group => group.name === 'other').members[0];
            const lane = timeline.model.lanes[g];
            timeline.setView(lane.start(0 + lane.from), lane.end(lane.from));
        })()"""
    )
    page.frame()
    found = pixel(page, 700, middle_of(page, "other"))
    assert "#" + "".join(f"{part:02x}" for part in found) == colours[1]


def test_names_are_text_and_nothing_else(page: Browser) -> None:
    page.click(150, middle_of(page, HOSTILE))
    assert HOSTILE in details(page)
    assert page.evaluate("document.querySelectorAll('img').length") == 0


def test_dark_and_light(small_page: Path) -> None:
    back = "getComputedStyle(document.body).backgroundColor"
    with Browser(dark=True) as dark:
        dark.open(small_page, READY)
        assert dark.evaluate(back) == "rgb(20, 23, 28)"
        dark.press("t")
        assert dark.evaluate(back) == "rgb(255, 255, 255)"
        assert dark.problems == []


def test_text_has_contrast(page: Browser) -> None:
    ratios = page.evaluate(
        """['light', 'dark'].flatMap(theme => {
            document.documentElement.dataset.theme = theme;
            timeline.painter.readColors();
            const shine = colour => {
                const parts = colour.match(/[0-9a-f]{2}/gi).map(part => parseInt(part, 16) / 255)
                    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
                return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
            };
            const ratio = (a, b) => {
                const [low, high] = [shine(a), shine(b)].sort((x, y) => x - y);
                return (high + 0.05) / (low + 0.05);
            };
            const { css } = timeline.painter;
            const onBlock = theme === 'dark' ? '#101418' : '#ffffff';
            return [
                ...['back', 'panel', 'band', 'thread', 'chosen'].flatMap(name =>
                    [ratio(css.text, css[name]), ratio(css.dim, css[name])]),
                ratio(css.accent, css.panel),
                ...PALETTE.map(pair => ratio(pair[theme === 'dark' ? 1 : 0], onBlock)),
            ];
        })"""
    )
    assert min(ratios) >= 4.5  # what WCAG asks for


# --- how it is moved ------------------------------------------------------------------------------


def test_the_wheel_zooms_at_the_pointer(page: Browser) -> None:
    whole = view(page)
    time_there = "timeline.painter.time(600 - timeline.chart.getBoundingClientRect().left)"
    before = page.evaluate(time_there)
    for _ in range(5):
        page.wheel(600, 300, -100)
    begin, end = view(page)
    assert end - begin < 0.5 * (whole[1] - whole[0])
    assert page.evaluate(time_there) == pytest.approx(before, rel=1e-6)
    for _ in range(20):
        page.wheel(600, 300, 200)
    assert view(page) == whole


def test_the_zoom_has_an_end(page: Browser) -> None:
    for _ in range(60):
        page.wheel(700, 300, -200)
    begin, end = view(page)
    assert end - begin == pytest.approx(20)


def test_a_drag_moves_and_a_drag_with_shift_zooms(page: Browser) -> None:
    page.evaluate("timeline.zoom(0.25)")
    page.frame()
    begin, end = view(page)
    page.drag((700, 500), (600, 500))
    moved = view(page)
    assert moved[0] > begin
    assert moved[1] - moved[0] == pytest.approx(end - begin)
    left, right = (page.evaluate(f"timeline.painter.time({x})") for x in (400, 800))
    page.drag((400, 500), (800, 500), shift=True)
    assert view(page) == pytest.approx((left, right), rel=0.01)


def test_a_drag_on_the_ruler_zooms(page: Browser) -> None:
    before = view(page)
    page.drag((500, top(page) + 10), (700, top(page) + 10))
    after = view(page)
    assert after[1] - after[0] < 0.4 * (before[1] - before[0])


def test_the_overview_chooses_and_moves_the_part_in_view(page: Browser) -> None:
    whole = view(page)[1]
    y = page.evaluate("document.getElementById('overview').getBoundingClientRect().top") + 20
    page.drag((350, y), (700, y))
    begin, end = view(page)
    assert begin / whole == pytest.approx(0.25, abs=0.02)
    assert end / whole == pytest.approx(0.5, abs=0.02)
    page.drag((500, y), (850, y))
    assert view(page)[0] / whole == pytest.approx(0.5, abs=0.02)


def test_keys_zoom_and_move(page: Browser) -> None:
    whole = view(page)
    page.press("+")
    page.press("+")
    begin, end = view(page)
    assert end - begin < 0.6 * whole[1]
    page.press("ArrowRight")
    assert view(page)[0] > begin
    page.press("ArrowLeft")
    assert view(page)[0] == pytest.approx(begin, rel=1e-6)
    page.press("0")
    assert view(page) == whole


def run_chosen(page: Browser) -> tuple[float, float]:
    start = "timeline.run.thread.start"
    begin, end = page.evaluate(f"[{start}[timeline.run.k], {start}[timeline.run.k + 1]]")
    return begin, end


def test_keys_choose_rows_and_tell_screen_readers(page: Browser) -> None:
    live = "document.getElementById('live').textContent"
    page.press("ArrowDown")
    assert page.evaluate(live).startswith("Thread MainThread, 16 greenlets")
    page.press("ArrowDown")
    page.press("ArrowDown")
    assert page.evaluate(live) == "12 greenlets work"
    page.press(" ")
    assert len(rows(page)) > 18
    page.press("ArrowDown")
    assert page.evaluate(live).startswith("Greenlet work, 4 runs")
    page.press("]")
    assert "Run 1 of 4" in details(page)
    page.press("ArrowRight", shift=True)
    assert "Run 2 of 4" in details(page)
    page.press("[")
    assert "Run 1 of 4" in details(page)
    page.press("z")
    begin, end = run_chosen(page)
    assert view(page)[0] <= begin < end <= view(page)[1]
    assert view(page)[1] - view(page)[0] <= 1.2 * (end - begin) + 21  # 20 ns are the least shown
    page.press("Escape")
    assert "The recording" in details(page)


def test_every_control_is_reached_by_tab(page: Browser) -> None:
    reached = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(40):
        page.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"search", "order", "in", "out", "fit", "theme", "help-button", "chart"} <= reached


def test_help_opens_and_closes(page: Browser) -> None:
    page.press("?")
    assert page.evaluate("document.getElementById('help').open")
    page.press("Enter")
    assert not page.evaluate("document.getElementById('help').open")


# --- details and search ---------------------------------------------------------------------------


def test_a_click_on_a_block_shows_the_run(page: Browser) -> None:
    page.evaluate(
        """(() => {
            const { start } = timeline.model.threads[0];
            timeline.setView(start[1], start[2]);
        })()"""
    )
    page.frame()
    x = x_of(page, "(timeline.model.threads[0].start[1] + timeline.model.threads[0].start[2]) / 2")
    page.click(x, middle_of(page, "MainThread"))
    text = details(page)
    assert "Run 1 of 4" in text
    assert "work" in text
    assert "Switched to by" in text
    assert "main #0" in text


def test_links_lead_to_other_greenlets(page: Browser) -> None:
    page.click(150, middle_of(page, "fails"))
    text = details(page)
    assert "Finished" in text
    page.evaluate(
        """[...document.querySelectorAll('#details .link')]
             .find(link => link.textContent.startsWith('main')).click()"""
    )
    assert "main" in details(page).splitlines()[0]


def test_a_fold_opens_and_closes(page: Browser) -> None:
    before = len(rows(page))
    page.click(25, middle_of(page, "work"))
    assert len(rows(page)) == before + 12
    page.click(25, middle_of(page, "work"))
    assert len(rows(page)) == before


def test_the_tip_says_what_runs_and_what_waits(page: Browser) -> None:
    tip = "document.getElementById('tip').innerText"
    page.evaluate(
        """(() => {
            const g = timeline.model.groups.find(group => group.name === 'fails').members[0];
            const lane = timeline.model.lanes[g];
            timeline.setView(lane.start(lane.from), lane.start(lane.from + 1));
        })()"""
    )
    page.frame()
    page.move(700, middle_of(page, "fails"))
    assert page.evaluate(tip).startswith("fails\nwaits for ")
    page.move(700, middle_of(page, "MainThread"))
    assert "runs for" in page.evaluate(tip)


def test_the_tip_goes_when_what_is_below_it_changes(page: Browser) -> None:
    is_hidden = "document.getElementById('tip').hidden"
    page.press("/")
    page.move(700, middle_of(page, "MainThread"))
    assert not page.evaluate(is_hidden)
    page.type("other")
    assert page.evaluate(is_hidden)
    page.press("Escape")
    page.move(700, middle_of(page, "MainThread"))
    assert not page.evaluate(is_hidden)
    page.press("+")
    assert page.evaluate(is_hidden)


def test_search_shows_what_matches(page: Browser) -> None:
    page.press("/")
    page.type("OTH")
    assert [name for name in rows(page) if name != "MainThread"] == ["other", HOSTILE]
    assert page.evaluate("document.getElementById('matches').textContent") == "2 of 18"
    page.press("Enter")
    assert details(page).startswith("other")
    page.press("Enter")
    assert HOSTILE in details(page)
    page.press("Escape")
    assert "work" in rows(page)


def test_search_by_number_and_without_a_match(page: Browser) -> None:
    page.press("/")
    page.type("#3")
    assert rows(page) == ["MainThread", "work"]
    page.press("Escape")
    page.press("/")
    page.type("no such name")
    assert rows(page) == []
    assert page.evaluate("document.getElementById('matches').textContent") == "0 of 18"


def test_rows_in_another_order(page: Browser) -> None:
    page.evaluate(
        """(() => {
            const order = document.getElementById('order');
            order.value = 'name';
            order.dispatchEvent(new Event('change'));
        })()"""
    )
    assert rows(page)[1:6] == ["main", HOSTILE, "fails", "other", "work"]


def test_an_exception_is_marked(page: Browser) -> None:
    page.click(150, middle_of(page, "main"))
    assert "Exceptions into it" in details(page)


# --- large, empty, cut off ------------------------------------------------------------------------


def test_ten_thousand_greenlets_and_a_million_switches(browser: Browser, tmp_path: Path) -> None:
    main = getcurrent()

    def many() -> None:
        for _ in range(50):
            main.switch()

    collect()
    with timeline.record() as recording:
        family = [greenlet(many) for _ in range(10_000)]
        for _ in range(51):
            for g in family:
                g.switch()
    assert recording.switches == 1_020_000
    recording.save(tmp_path / "many.html")
    assert (tmp_path / "many.html").stat().st_size < 12_000_000
    browser.open(tmp_path / "many.html", READY)

    def drawn() -> Any:
        """How long a frame takes, in milliseconds: the fastest, as the machine may be busy."""
        return browser.evaluate(
            """(async () => {
                const times = [];
                for (let i = 0; i < 7; i++) {
                    timeline.setView(timeline.from + i, timeline.to - i);
                    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
                    times.push(timeline.lastFrame);
                }
                return Math.min(...times);
            })()"""
        )

    frames = {"all, folded": drawn()}
    browser.evaluate("timeline.fold(timeline.rows.find(row => row.kind === 'group'))")
    browser.frame()
    assert browser.evaluate("timeline.rows.length") == 10_003
    frames["all, unfolded"] = drawn()
    browser.evaluate("timeline.setScroll(1e9)")
    browser.frame()
    frames["the last rows"] = drawn()
    height = "timeline.chart.clientHeight - RULER"
    assert browser.evaluate(f"timeline.visibleRows({height}).at(-1).greenlet") == 10_000
    for _ in range(12):
        browser.wheel(700, 400, -200)
    frames["a part"] = drawn()
    browser.press("/")
    browser.type("#777")
    browser.press("Enter")
    assert "#777" in details(browser)
    frames["found"] = drawn()
    print(frames)
    assert max(frames.values()) < 100, frames
    assert browser.problems == []


def test_a_recording_that_was_cut_off_says_so(browser: Browser, tmp_path: Path) -> None:
    collect()
    with timeline.record(limit=300) as recording:
        for _ in range(500):
            greenlet(len).switch("")
    recording.save(tmp_path / "cut.html")
    browser.open(tmp_path / "cut.html", READY)
    warning = browser.evaluate("document.getElementById('warning').innerText")
    assert warning.startswith("The limit was reached after ")
    assert f"{recording.lost:,} later switches are missing" in warning
    assert browser.problems == []


def test_an_empty_recording_is_shown(browser: Browser, tmp_path: Path) -> None:
    timeline.Recording().save(tmp_path / "empty.html")
    browser.open(tmp_path / "empty.html", READY)
    for key in ("ArrowDown", "+", "]", "z", "0"):
        browser.press(key)
    browser.click(600, 300)
    browser.wheel(600, 300, -100)
    assert rows(browser) == []
    assert browser.problems == []


def test_a_broken_page_says_that_it_cannot_be_shown(
    browser: Browser, small_page: Path, tmp_path: Path
) -> None:
    text = small_page.read_text(encoding="utf-8")
    (tmp_path / "broken.html").write_text(
        text.replace('"packed":"deflate"', '"packed":"unknown"'), encoding="utf-8"
    )
    warning = "document.getElementById('warning')"
    browser.open(tmp_path / "broken.html", f"{warning} && !{warning}.hidden")
    assert "cannot show the recording" in browser.evaluate(f"{warning}.innerText")
