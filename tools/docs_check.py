"""Look at the site in a browser: every page, wide and light, narrow and dark.

axe finds faults of accessibility, contrast and the order of headings among them. No page may be
wider than its window. Screenshots are in build/docs-check. Needs Chromium, playwright and axe.

    python tools/docs_check.py [PAGE ...]
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

CHECKOUT = Path(__file__).resolve().parent.parent
SITE = CHECKOUT / "build" / "docs"
PICTURES = CHECKOUT / "build" / "docs-check"
WINDOWS: dict[str, dict[str, Any]] = {
    "wide-light": {"viewport": {"width": 1366, "height": 900}, "color_scheme": "light"},
    "narrow-dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}


def faults_of(page: Page, axe: Axe) -> list[str]:
    """Return what is wrong with the page that the browser shows."""
    found = [
        f"{fault['id']} ({fault['impact']}): {fault['help']}\n      {node['html'][:160]}"
        for fault in axe.run(page).response["violations"]
        for node in fault["nodes"][:3]
    ]
    width = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    if width > 0:
        found.append(f"the page is {width} pixels wider than the window")
    return found


def main() -> int:
    chosen = sys.argv[1:] or sorted(
        path.relative_to(SITE).with_suffix("").as_posix()
        for path in SITE.rglob("*.html")
        if not path.is_relative_to(SITE / "_static")
    )
    PICTURES.mkdir(parents=True, exist_ok=True)
    passed = failed = 0
    axe = Axe()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for window, options in WINDOWS.items():
            page = browser.new_context(**options).new_page()
            for name in chosen:
                page.goto((SITE / f"{name}.html").as_uri())
                faults = faults_of(page, axe)
                page.screenshot(path=PICTURES / f"{name.replace('/', '-')}-{window}.png")
                for fault in faults:
                    print(f"{name}, {window}: {fault}")
                failed += bool(faults)
                passed += not faults
        browser.close()
    print(f"{passed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
