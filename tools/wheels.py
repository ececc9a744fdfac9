"""Build the sdist, and from it a wheel for each interpreter, into dist/, and check them.

cibuildwheel does so for everybody, but runs in containers, which are not everywhere. This does the
same on the machine at hand, with the same settings, and only what has passed is in dist/:

- check-manifest: the sdist holds what git knows, and nothing else.
- auditwheel finds the oldest manylinux (or musllinux) tag that the wheel's symbols allow.
- check-wheel-contents and twine: the package is complete, the metadata is valid.
- The Python suite passes in an environment with the wheel, in a folder without our sources. It also
  looks at what the package holds, at the libraries that it loads, and at its hardening.
- What none of these looks at: the module has no debug information; the bill of materials is valid;
  glibc 2.17 is enough.
- The sdist and one wheel are built a second time, in another folder, with another umask: the bytes
  are the same.
- dist/simple is an index (PEP 503) of all files. pip and uv install from it, and from dist/ alone,
  for requirements as programs have them; `pip check` finds nothing.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from zipfile import ZipFile

import environments
import index
import interpreters
import nox
import suites
from environments import Unavailable, required
from suites import CHECKOUT, Counts, Report

DIST = CHECKOUT / "dist"
SETTINGS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
#: What programs, SQLAlchemy and gevent among them, ask for. The version with its label suits all.
PLAIN = PROJECT["version"].partition("+")[0]
REQUIREMENTS = ("", ">=3.2", "!=0.4.17,>=1", f"=={PLAIN}", f"<={PLAIN}", f"=={PROJECT['version']}")


def make(session: nox.Session, report: Report, names: Sequence[str]) -> None:
    """Build, check and test everything."""
    settings = SETTINGS["tool"]["cibuildwheel"]
    wanted = [f"cp{name.replace('.', '')}-*" for name in interpreters.STANDARD]
    if settings["build"] != wanted:
        session.error(f"cibuildwheel is told to build {settings['build']}, not {wanted}")
    # What is built twice from one commit is the same twice.
    date = environments.run("git", "log", "-1", "--format=%ct").strip()
    path = f"{session.bin}{os.pathsep}{os.environ['PATH']}"
    shutil.rmtree(DIST, ignore_errors=True)
    session.run("check-manifest", "--no-build-isolation", silent=True)

    os.umask(0o022)  # a wheel has the modes of the files that it is made of

    def do(*command: str | Path) -> None:
        environments.run(*command, SOURCE_DATE_EPOCH=date, PATH=path)

    with tempfile.TemporaryDirectory(prefix="greenlet-wheels-") as folder:
        do("uv", "build", "--sdist", "--no-create-gitignore", "--out-dir", DIST)
        (sdist,) = DIST.glob("*.tar.gz")
        do("twine", "check", "--strict", sdist)
        with required(report, "sdist-twice"):
            copy = Path(folder, "another", "checkout")
            copy.mkdir(parents=True)
            listed = 'umask 077; git ls-files -z | xargs -0 cp --parents --no-preserve=mode -t "$0"'
            do("sh", "-c", listed, copy)
            do("sh", "-c", 'umask 077; uv build --sdist --out-dir "$0" "$1"', copy / "dist", copy)
            same(report, "sdist-twice", sdist, *copy.glob("dist/*.tar.gz"))
        # Not in the checkout, whose sources no test is to find.
        suite = Path(folder, "suite")
        suite.mkdir()
        top = sdist.name.removesuffix(".tar.gz")
        tests = [f"{top}/{source}" for source in settings["test-sources"]]
        do("tar", "-xf", sdist, "-C", suite, "--strip-components=1", *tests)

        def build(base: Path, work: Path) -> Path:
            do("uv", "build", "--wheel", "--python", base, "--out-dir", work / "raw", sdist)
            do("auditwheel", "repair", "--wheel-dir", work / "all", *work.glob("raw/*.whl"))
            (wheel,) = work.glob("all/*.whl")
            return wheel

        def one(item: tuple[str, Path]) -> None:
            name, base = item
            work, label = Path(folder, name), f"wheel-{name}"
            with required(report, label):
                wheel = build(base, work)
                if name == next(iter(found)):
                    same(report, "wheel-twice", wheel, build(base, work / "another" / "time"))
                check_bill(wheel)
                if "-manylinux" in wheel.name and "_2_17_" not in wheel.name:
                    raise Unavailable(f"{wheel.name} needs a newer glibc than 2.17")
                do("check-wheel-contents", wheel)
                do("twine", "check", "--strict", wheel)
                python = environments.make(work / "venv", base, "--no-index", wheel)
                environments.install(python, "--group", "test")
                installed = work.glob("venv/lib/*/site-packages/greenlet/*.so")
                if re.search(r"\.debug_", environments.run("readelf", "-SW", *installed)):
                    raise Unavailable(f"{wheel.name} has debug information")
                counts = suites.pytest(report, label, [python], "tests/python", folder=suite)
                if not counts.failed:
                    print(f"{wheel.name}: {wheel.stat().st_size:,} bytes")
                    shutil.move(wheel, DIST)

        found = interpreters.provide(names or interpreters.STANDARD)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, found.items()))
        simple = index.write(DIST, PROJECT["requires-python"])
        base = next(iter(found.values()))
        with required(report, "index"):
            report.add("index", install_from(simple, base, Path(folder, "index")))


def same(report: Report, label: str, one: Path, other: Path) -> None:
    """Count whether two files have the same name and the same bytes."""
    equal = one.name == other.name and one.read_bytes() == other.read_bytes()
    report.add(label, Counts(int(equal), int(not equal), 0))


def check_bill(wheel: Path) -> None:
    """Check the bill of materials in a wheel against the schema of CycloneDX."""
    with ZipFile(wheel) as archive:
        (bill,) = (name for name in archive.namelist() if name.endswith("/sboms/greenlet.cdx.json"))
        text = archive.read(bill).decode()
    code = "import sys; from cyclonedx.schema import SchemaVersion; "
    code += "from cyclonedx.validation.json import JsonStrictValidator; "
    code += "sys.exit(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.argv[1]))"
    python = CHECKOUT / ".venvs" / "wheels" / "bin" / "python"
    environments.run(python, "-c", code, text)
    assert json.loads(text)["metadata"]["component"]["name"] == "greenlet"


def install_from(simple: Path, base: Path, folder: Path) -> Counts:
    """Install from the index and from the folder, by pip and by uv; count what was right."""
    code = "import greenlet; print(greenlet.__implementation__)"
    python = environments.make(folder, base, "pip")
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))
    }
    clean |= {"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1"}
    # How each begins, where it installs, and how it installs again what is there.
    pip = (f"{python} -m pip --no-cache-dir", "", "--force-reinstall")
    uv = (f"{environments.UV} --no-cache pip", f"--python {python}", "--reinstall")
    sources = (f"--index-url {simple.as_uri()}", f"--no-index --find-links {simple.parent}")
    counts = Counts()
    for (tool, target, again), source, wanted in product((pip, uv), sources, REQUIREMENTS):
        install = [*f"{tool} install {target} {again} {source}".split(), f"greenlet{wanted}"]
        check = f"{tool} check {target}".split()
        for command in (install, check, [str(python), "-c", code]):
            done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
            if done.returncode:
                break
        right = not done.returncode and done.stdout.strip() == "own-stacks"
        counts = Counts(counts.passed + right, counts.failed + (not right), 0)
        if not right:
            print(*command, done.stdout, done.stderr)
    return counts
