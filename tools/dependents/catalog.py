"""What is run with either greenlet: for each suite its packages, its command and its limits."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Suite:
    """A suite of tests that depends on greenlet."""

    name: str  # as in the table
    package: str  # its version is the table's
    requirements: tuple[str, ...]  # of both environments; suites with the same ones share them
    command: tuple[str, ...]  # what its python is to run
    runner: Literal["pytest", "gevent"]  # who tells how each test went
    # Where the suite is: in the package itself, in its source distribution, or in this checkout.
    source: Literal["wheel", "sdist", "checkout"] = "sdist"
    environment: dict[str, str] = field(default_factory=dict)
    minutes: float = 10  # the time limit of a run

    @property
    def slug(self) -> str:
        """The name as a part of file names."""
        words = "".join(c if c.isalnum() else " " for c in self.name.lower()).split()
        return "-".join(words)


def _pytest(*arguments: str, limit: int = 120) -> tuple[str, ...]:
    """Run pytest; a test that takes longer than `limit` ends the process, and the rest goes on."""
    return (
        # -s: SQLAlchemy's suite takes the installed library, not the one beside it.
        *("-s", "-m", "pytest", "-p", "interop_recorder", "-p", "no:cacheprovider"),
        *("-q", f"--timeout={limit}", "--timeout-method=thread", *arguments),
    )


_PYTEST = ("pytest", "pytest-timeout")
_GEVENT = ("gevent[recommended,test]", "dnspython", "idna")
# There is no network here. Each module gets a process of its own, so that one that crashes takes no
# other with it.
_GEVENT_TESTS = ("-m", "gevent.tests", "-u", "all,-network", "--no-combine", "-j", "2")

SUITES = (
    *(
        Suite(
            *(f"gevent, {loop}", "gevent", _GEVENT, _GEVENT_TESTS, "gevent", "wheel"),
            environment={"GEVENT_LOOP": implementation},
            minutes=20,
        )
        for loop, implementation in (("libev", "libev-cext"), ("libuv", "libuv-cffi"))
    ),
    Suite(
        "eventlet",
        "eventlet",
        ("eventlet", "pyzmq", "aiohttp", *_PYTEST),
        _pytest("tests"),
        "pytest",
        environment={"PYTHONDONTWRITEBYTECODE": "1"},
        minutes=20,
    ),
    Suite(
        "SQLAlchemy, asyncio suites",
        "sqlalchemy",
        ("sqlalchemy[asyncio]", "aiosqlite", "pytest-xdist", *_PYTEST),
        # One database: the tests of two would have the same names. The next suite has the other.
        _pytest("--db", "aiosqlite_file", "test/ext/asyncio"),
        "pytest",
    ),
    Suite(
        "SQLAlchemy, database suite on aiosqlite",
        "sqlalchemy",
        ("sqlalchemy[asyncio]", "aiosqlite", "pytest-xdist", *_PYTEST),
        # The rest, left out by --backend-only, makes no connection, and so no greenlet.
        _pytest(
            *("-n", "2", "--backend-only", "--db", "aiosqlite", "--maxfail=0", "test"), limit=300
        ),
        "pytest",
        minutes=60,
    ),
    Suite(
        "greenback",
        "greenback",
        ("greenback", "pytest-trio", "trio", "anyio", *_PYTEST),
        _pytest("greenback/_tests"),
        "pytest",
    ),
    Suite(
        "awaitlet",
        "awaitlet",
        ("awaitlet", "sqlalchemy[asyncio]", "aiosqlite", *_PYTEST),
        _pytest("tests"),
        "pytest",
    ),
    Suite(
        "greenletio",
        "greenletio",
        ("greenletio", *_PYTEST),
        _pytest("-p", "no:logging", "tests"),
        "pytest",
    ),
    Suite(
        "asyncio-gevent",
        "asyncio-gevent",
        ("asyncio-gevent", *_PYTEST),
        _pytest("tests", limit=20),
        "pytest",
    ),
    Suite(
        "geventhttpclient",
        "geventhttpclient",
        ("geventhttpclient", "requests", "httplib2", "dpkt", "pytest-rerunfailures", *_PYTEST),
        _pytest("tests"),
        "pytest",
    ),
    Suite(
        "pynvim",
        "pynvim",
        ("pynvim", *_PYTEST),
        _pytest("test"),
        "pytest",
    ),
    Suite(
        "Playwright",
        "playwright",
        ("playwright", *_PYTEST),
        _pytest("tests/interop/dependents/test_playwright.py"),
        "pytest",
        "checkout",
    ),
    Suite(
        "gunicorn, gevent workers",
        "gunicorn",
        ("gunicorn[gevent]", *_PYTEST),
        _pytest("tests/interop/dependents/test_gunicorn.py"),
        "pytest",
        "checkout",
        {"GUNICORN_WORKER": "gevent"},
    ),
    Suite(
        # 26 removed this worker
        "gunicorn, eventlet workers",
        "gunicorn",
        ("gunicorn<26", "eventlet", "packaging", *_PYTEST),
        _pytest("tests/interop/dependents/test_gunicorn.py"),
        "pytest",
        "checkout",
        {"GUNICORN_WORKER": "eventlet"},
    ),
    Suite(
        "locust",
        "locust",
        ("locust", *_PYTEST),
        _pytest("tests/interop/dependents/test_locust.py"),
        "pytest",
        "checkout",
    ),
    Suite(
        # How it looks on while greenlets are used in all ways; tests/interop has more of memray.
        "pytest-memray, over the contract",
        "pytest-memray",
        ("pytest-memray", *_PYTEST),
        _pytest("--memray", "tests/interop/programs/contract_scripts.py"),
        "pytest",
        "checkout",
    ),
)
