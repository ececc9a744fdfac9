"""Programs that use greenlet.h, built in the ways in which people build them: examples/*_extension.

Those marked "building" take several seconds each. `make test-building` runs them.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import greenlet
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = Path(sysconfig.get_path("scripts"))
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")

#: What a user may try with each module, and what it then prints.
USES = {
    "values": ("print(values.collect(lambda: values.countdown(3)))", "[3, 2, 1]"),
    "tasks": (
        "task = tasks.Task(lambda: tasks.pause('first') + tasks.pause('second'));"
        "print(task.switch(), task.switch(1), task.switch(2), task.switches)",
        "first second 3 3",
    ),
}


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """Run a command that has to succeed; return what it prints."""
    # The interpreter may have been compiled by a compiler that this machine does not have.
    path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
    variables = {"CC": "gcc", "CXX": "g++", **os.environ, "PATH": path, **environment}
    done = subprocess.run(
        command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def ask(*options: str) -> str:
    """What `python -m greenlet` prints."""
    return run(sys.executable, "-m", "greenlet", *options)


def check(module: str, folder: Path, python: str | Path = sys.executable) -> None:
    """See that a module that was built works. It is found in the folder, or in the environment."""
    use, said = USES[module]
    assert run(python, "-c", f"import {module}; {use}", cwd=folder) == said


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of an example, as a reader makes it."""
    folder: str = getattr(request, "param", "c_extension")
    return shutil.copytree(EXAMPLES / folder, tmp_path / "project")


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"there is no {program}")
    return found


both = pytest.mark.parametrize(
    ("project", "module"),
    [("c_extension", "values"), ("cython_extension", "tasks")],
    indirect=["project"],
)


def test_the_folder_for_the_compiler_has_the_header_and_nothing_else() -> None:
    folder = Path(greenlet.get_include())
    assert folder.is_absolute()
    files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    assert files == [Path("greenlet/greenlet.h")]


def test_star_imports_get_what_they_have_always_got() -> None:
    assert "get_include" not in greenlet.__all__


@pytest.mark.parametrize(
    "compiler",
    ["gcc -std=c99", "clang -std=c99", "g++ -x c++ -std=c++11", "clang++ -x c++ -std=c++11"],
)
def test_compilers_get_their_options_from_the_command_line(compiler: str, tmp_path: Path) -> None:
    need(compiler.split()[0])
    source = tmp_path / "program.c"
    source.write_text(
        "#include <greenlet/greenlet.h>\nint main(void) { return PyGreenlet_Import(); }"
    )
    run(*compiler.split(), "-fsyntax-only", *shlex.split(ask("--includes")), source)


def test_the_options_are_quoted_for_a_shell(tmp_path: Path) -> None:
    script = """
import greenlet, greenlet.__main__
greenlet.get_include = lambda: "/a folder/include"
greenlet.__main__.main(["--includes"])
"""
    assert shlex.split(run(sys.executable, "-c", script))[-1] == "-I/a folder/include"


def test_pkg_config_knows_the_version_and_the_folder_wherever_the_package_is(
    tmp_path: Path,
) -> None:
    need("pkg-config")
    moved = tmp_path / "moved"
    for folder in ("include", "pkgconfig"):
        shutil.copytree(Path(ask("--pkgconfig-dir")).with_name(folder), moved / folder)
    for place in (Path(ask("--pkgconfig-dir")), moved / "pkgconfig"):
        tool = ("env", f"PKG_CONFIG_PATH={place}", "pkg-config", "greenlet")
        assert run(*tool, "--modversion") == greenlet.__version__
        (option,) = shlex.split(run(*tool, "--cflags"))
        assert option.startswith("-I")
        assert Path(option[2:]).resolve() == place.with_name("include").resolve()


@both
def test_cmake_builds_an_example(project: Path, module: str) -> None:
    need("cmake")
    where = f"-Dgreenlet_DIR={ask('--cmake-dir')}"
    python = f"-DPython_EXECUTABLE={sys.executable}"
    run("cmake", "-G", "Ninja", "-B", "build", where, python, cwd=project)
    run("cmake", "--build", "build", cwd=project)
    check(module, project / "build")


def test_cmake_refuses_a_greenlet_that_is_too_old(project: Path) -> None:
    need("cmake")
    (project / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18...4.0)\n"
        "project(example LANGUAGES NONE)\n"
        "find_package(greenlet 99 CONFIG)\n"
        'file(WRITE found "${greenlet_FOUND} ${greenlet_CONSIDERED_VERSIONS}")\n'
    )
    run("cmake", "-B", "build", f"-Dgreenlet_DIR={ask('--cmake-dir')}", cwd=project)
    assert (project / "found").read_text() == f"0 {greenlet.__version__}"


@pytest.mark.building
@both
def test_setuptools_builds_an_example(project: Path, module: str) -> None:
    run(sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", cwd=project)
    check(module, project)


@pytest.mark.building
@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="this is not a virtual environment")
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("language", ["c", "c++"])
def test_in_a_virtual_environment_setuptools_finds_the_header_by_itself(
    project: Path, compiler: str, language: str
) -> None:
    need(compiler)
    source = Path("values.c")
    if language == "c++":
        # C++ has designated initializers since C++20, and does not mix them with others.
        text = (project / source).read_text()
        definition = '= {PyModuleDef_HEAD_INIT, "values", "", 0, functions, slots};'
        text = re.sub(r"(?<=definition )= \{.*?\};", definition, text, flags=re.DOTALL)
        source = source.with_suffix(".cpp")
        (project / source).write_text(text)
    (project / "setup.py").write_text(
        "from setuptools import Extension, setup\n"
        f"setup(ext_modules=[Extension('values', ['{source}'])])\n"
    )
    tools = {"CC": compiler, "CXX": {"gcc": "g++", "clang": "clang++"}[compiler]}
    run(sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", cwd=project, **tools)
    check("values", project)


def test_scikit_build_core_finds_the_package_for_cmake_by_itself(project: Path) -> None:
    pyproject = project / "pyproject.toml"
    text = pyproject.read_text().replace("setuptools.build_meta", "scikit_build_core.build")
    pyproject.write_text(text)
    build = "from scikit_build_core.build import build_wheel; build_wheel('dist')"
    run(sys.executable, "-c", build, cwd=project)
    (wheel,) = project.glob("dist/*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(project / "built")
    check("values", project / "built")


# --- with pip, in environments ---


def pack(name: str, folder: Path) -> None:
    """Make a wheel of an installed distribution, so that pip needs no index."""
    distribution = importlib.metadata.distribution(name)
    facts = distribution.read_text("WHEEL") or ""
    tag = re.findall(r"^Tag: (.+)$", facts, re.MULTILINE)[0]
    stem = f"{name}-{distribution.version}"
    site, prefix = Path(str(distribution.locate_file(""))).resolve(), Path(sys.prefix).resolve()
    names = {}
    for file in distribution.files or []:
        path = Path(str(file.locate())).resolve()
        if path.suffix == ".pyc" or path.name in ("RECORD", "INSTALLER", "direct_url.json"):
            continue
        if path.is_relative_to(site):
            names[path.relative_to(site).as_posix()] = path
        else:
            names[f"{stem}.data/data/{path.relative_to(prefix).as_posix()}"] = path
    (info,) = {name.split("/")[0] for name in names if name.split("/")[0].endswith(".dist-info")}
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{stem}-{tag}.whl", "w") as wheel:
        for name, path in names.items():
            wheel.write(path, name)
        record = f"{info}/RECORD"
        wheel.writestr(record, "".join(f"{name},,\n" for name in (*names, record)))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheels of greenlet and of what the examples are built by."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in ("greenlet", "setuptools", "cython"):
        pack(name, folder)
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """The python of a plain virtual environment."""
    folder = tmp_path / "environment"
    run(sys._base_executable, "-m", "venv", folder)  # type: ignore[attr-defined]
    return folder / "bin" / "python"


@pytest.mark.building
@both
@pytest.mark.parametrize("isolated", [True, False])
def test_pip_builds_and_installs_an_example(
    project: Path, module: str, isolated: bool, environment: Path, wheels: Path
) -> None:
    pip = (environment, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", wheels)
    if not isolated:
        run(*pip, "greenlet", "setuptools", "cython")
    run(*pip, *([] if isolated else ["--no-build-isolation"]), project)
    check(module, environment.parent, environment)


@pytest.mark.building
def test_pip_builds_what_knows_nothing_of_get_include_in_a_virtual_environment(
    project: Path, environment: Path, wheels: Path
) -> None:
    (project / "setup.py").write_text(
        "from setuptools import Extension, setup\n"
        "setup(ext_modules=[Extension('values', ['values.c'])])\n"
    )
    pip = (environment, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", wheels)
    run(*pip, "greenlet", "setuptools")
    run(*pip, "--no-build-isolation", project)
    check("values", environment.parent, environment)
