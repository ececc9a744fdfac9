"""Playwright's sync API, which switches greenlets under each call, with Debian's Chromium."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import greenlet
import pytest
from playwright.sync_api import Browser, Dialog, Page, Route, expect, sync_playwright
from support import EXPECTED_GREENLET

PAGE = """\
<!doctype html><title>Page {number}</title>
<input id=name><button id=greet onclick="
  document.getElementById('said').textContent = 'Hello, ' + document.getElementById('name').value">
greet</button><p id=said></p>
<button id=count onclick="this.textContent = Number(this.textContent) + 1">0</button>
<button id=ask onclick="this.textContent = confirm('sure?') ? 'yes' : 'no'">?</button>
<a id=next href="/{next}">next</a>
<script>setTimeout(() => document.body.insertAdjacentHTML('beforeend', '<b id=late>late</b>'), 200)
</script>"""


class Handler(BaseHTTPRequestHandler):
    """Serves numbered pages."""

    def do_GET(self) -> None:
        number = int(self.path.strip("/") or 0) if self.path.strip("/").isdigit() else 0
        body = PAGE.format(number=number, next=number + 1).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Serve the pages."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    """Open the first page."""
    page = browser.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{site}/0")
    yield page
    page.close()


def test_it_runs_on_the_expected_greenlet() -> None:
    assert greenlet.__version__ == EXPECTED_GREENLET


def test_type_and_click(page: Page) -> None:
    page.type("#name", "Ada")
    page.click("#greet")
    assert page.inner_text("#said") == "Hello, Ada"


def test_screenshot(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "page.png"
    data = page.screenshot(path=file, full_page=True)
    assert data == file.read_bytes()
    assert data.startswith(b"\x89PNG") and len(data) > 1000


def test_many_clicks(page: Page) -> None:
    for _ in range(200):
        page.click("#count")
    assert page.inner_text("#count") == "200"


def test_links_lead_on(page: Page) -> None:
    for number in range(1, 15):
        with page.expect_navigation():
            page.click("#next")
        assert page.title() == f"Page {number}"


def test_it_waits_for_what_comes_later(page: Page) -> None:
    expect(page.locator("#late")).to_have_text("late", timeout=30_000)


def test_an_error_of_a_call_is_raised_where_the_call_is(page: Page) -> None:
    with pytest.raises(Exception, match="Timeout"):
        page.click("#nowhere", timeout=200)
    with pytest.raises(Exception, match="boom"):
        page.evaluate("() => { throw new Error('boom') }")
    assert page.evaluate("6 * 7") == 42


def test_handlers_call_the_api_themselves(page: Page, site: str) -> None:
    def fulfil(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace("greet<", "salute<"))

    page.route("**/7", fulfil)
    page.goto(f"{site}/7")
    assert page.inner_text("#greet") == "salute"

    def accept(dialog: Dialog) -> None:
        assert dialog.message == "sure?"
        dialog.accept()

    page.on("dialog", accept)
    page.click("#ask")
    assert page.inner_text("#ask") == "yes"


def test_the_page_calls_functions_of_ours(page: Page) -> None:
    seen: list[int] = []

    def called(number: int) -> int:
        seen.append(number)
        factor: int = page.evaluate("2") if number == 3 else 2
        return number * factor

    page.expose_function("double", called)
    total = page.evaluate(
        "async () => { let t = 0; for (let i = 0; i < 50; i++) t += await double(i); return t }"
    )
    assert total == 2450
    assert seen == list(range(50))


def test_many_pages(browser: Browser, site: str) -> None:
    context = browser.new_context()
    pages = [context.new_page() for _ in range(20)]
    for number, page in enumerate(pages):
        page.goto(f"{site}/{number}")
    for number, page in enumerate(pages):
        page.fill("#name", f"visitor {number}")
    for page in reversed(pages):
        page.click("#greet")
    said = [page.inner_text("#said") for page in pages]
    assert said == [f"Hello, visitor {number}" for number in range(20)]
    assert [page.title() for page in pages] == [f"Page {number}" for number in range(20)]
    context.close()


def test_a_browser_in_each_of_several_threads(site: str) -> None:
    titles: list[str] = []

    def visit(number: int) -> None:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page()
            page.set_default_timeout(60_000)
            page.goto(f"{site}/{number}")
            titles.append(page.title())
            browser.close()

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert sorted(titles) == ["Page 0", "Page 1", "Page 2"]


def test_it_starts_and_ends_again_and_again(site: str) -> None:
    # In a thread of its own: the fixture's is in use.
    titles: list[str] = []

    def visit() -> None:
        for number in range(3):
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                page = browser.new_page()
                page.goto(f"{site}/{number}")
                titles.append(page.title())

    thread = threading.Thread(target=visit)
    thread.start()
    thread.join(110)
    assert titles == ["Page 0", "Page 1", "Page 2"]
