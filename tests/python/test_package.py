"""The installed package: what it consists of, what importing it does, and its stubs."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import json
import re
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import greenlet
import greenlet._greenlet
import greenlet.stacks
import pytest
from elftools.elf.elffile import ELFFile
from helpers import ADDRESS_SANITIZER, THREAD_SANITIZER, run_clean

PACKAGE = Path(greenlet.__file__).parent


def names_in_stub(file: str) -> set[str]:
    """Return what a stub defines or imports at its top level, except its own `_Helpers`."""
    names: set[str] = set()
    for node in ast.parse((PACKAGE / file).read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.ImportFrom) and node.level:
            names |= {alias.name for alias in node.names}
    return names - {"_Capsule", "_GreenletExit", "_TraceCallback", "_Error"}


def test_importing_the_package_imports_nothing_else() -> None:
    loaded = run_clean(
        """
        import sys
        before = set(sys.modules)
        import greenlet
        print(*sorted(set(sys.modules) - before))
        """
    )
    assert loaded.split() == ["greenlet", "greenlet._greenlet"]


def test_the_stacks_settings_are_found_without_an_import_of_their_own() -> None:
    run_clean(
        """
        import sys
        import greenlet
        assert "greenlet.stacks" not in sys.modules
        assert "stacks" in dir(greenlet)
        assert greenlet.stacks.get_default_size() > 0
        assert greenlet.stacks is sys.modules["greenlet.stacks"]
        from greenlet import stacks
        assert stacks is greenlet.stacks
        assert "stacks" not in greenlet.__all__
        """
    )


def test_a_name_that_the_package_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="^module 'greenlet' has no attribute 'missing'$"):
        _ = greenlet.missing  # type: ignore[attr-defined]


def test_the_version_is_that_of_the_distribution() -> None:
    """The distribution has a label besides; __version__ is for programs that parse it."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", greenlet.__version__)
    assert importlib.metadata.version("greenlet") == f"{greenlet.__version__}+ownstacks"


def test_an_attribute_tells_which_implementation_this_is() -> None:
    assert greenlet.__implementation__ == "own-stacks"
    label = importlib.metadata.version("greenlet").partition("+")[2]
    assert greenlet.__implementation__.replace("-", "") == label


def test_the_package_needs_no_other_distribution() -> None:
    assert not importlib.metadata.requires("greenlet")


def test_the_distribution_installs_the_package_and_its_header_and_nothing_else() -> None:
    files = importlib.metadata.files("greenlet")
    assert files is not None
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    package = {
        str(file)
        for file in files
        if ".dist-info" not in file.parts[0] and "__pycache__" not in file.parts
    }
    headers = {name for name in package if name.startswith("..")}
    assert package - headers == {
        "greenlet/cmake/greenlet-config-version.cmake",
        "greenlet/cmake/greenlet-config.cmake",
        "greenlet/include/greenlet/greenlet.h",
        "greenlet/pkgconfig/greenlet.pc",
        "greenlet/__init__.py",
        "greenlet/__init__.pyi",
        f"greenlet/_greenlet{suffix}",
        "greenlet/_greenlet.pyi",
        "greenlet/greenlet.h",
        "greenlet/py.typed",
        "greenlet/__main__.py",
        "greenlet/_frames.py",
        "greenlet/_hints.py",
        "greenlet/_page/app.js",
        "greenlet/_page/details.js",
        "greenlet/_page/input.js",
        "greenlet/_page/lanes.js",
        "greenlet/_page/model.js",
        "greenlet/_page/overview.js",
        "greenlet/_page/page.css",
        "greenlet/_page/page.html",
        "greenlet/_page/threads.js",
        "greenlet/_timeline.py",
        "greenlet/_timeline_files.py",
        "greenlet/_timeline_run.py",
        "greenlet/_memory.py",
        "greenlet/_objects.py",
        "greenlet/_outside.py",
        "greenlet/_reader.py",
        "greenlet/_remote.py",
        "greenlet/_table.py",
        "greenlet/_variables.py",
        "greenlet/_view.py",
        "greenlet/_watch.py",
        "greenlet/gdb.py",
        "greenlet/inspect.py",
        "greenlet/stacks.py",
        "greenlet/timeline.py",
    }
    assert len(headers) == 2
    # One among the headers of the interpreter, one where setuptools looks in a virtual environment.
    assert all(name.endswith("/greenlet/greenlet.h") for name in headers)
    assert any(name.endswith("/include/greenlet/greenlet.h") for name in headers)


def test_the_bill_of_materials_names_this_version_and_what_the_compiler_added() -> None:
    files = importlib.metadata.files("greenlet")
    assert files is not None
    (found,) = (file for file in files if file.name == "greenlet.cdx.json")
    assert found.parts[-2] == "sboms"  # PEP 770: .dist-info/sboms
    bill = json.loads(found.read_text())
    version = importlib.metadata.version("greenlet")
    assert bill["metadata"]["component"]["version"] == version
    assert bill["metadata"]["component"]["purl"] == f"pkg:pypi/greenlet@{quote(version)}"
    assert [component["name"] for component in bill["components"]] == ["libgcc"]


def test_all_headers_are_the_same() -> None:
    files = importlib.metadata.files("greenlet")
    assert files is not None
    texts = [Path(str(f.locate())).read_text() for f in files if f.name == "greenlet.h"]
    assert len(texts) == 4
    assert len(set(texts)) == 1


def test_the_extension_is_hardened() -> None:
    """Stacks are not executable, relocated tables are read-only, and code is never written to."""
    with open(greenlet._greenlet.__file__, "rb") as file:
        segments = list(ELFFile(file).iter_segments())
        (dynamic,) = (segment for segment in segments if segment["p_type"] == "PT_DYNAMIC")
        tags = {tag["d_tag"]: tag["d_val"] for tag in dynamic.iter_tags()}
    flags = {segment["p_type"]: segment["p_flags"] for segment in segments}
    executable, writable, bind_now, now = 1, 2, 8, 1  # PF_X, PF_W, DF_BIND_NOW, DF_1_NOW
    assert flags["PT_GNU_STACK"] & executable == 0
    assert "PT_GNU_RELRO" in flags
    assert tags.get("DT_FLAGS", 0) & bind_now or tags.get("DT_FLAGS_1", 0) & now
    assert "DT_TEXTREL" not in tags
    loaded = [segment["p_flags"] for segment in segments if segment["p_type"] == "PT_LOAD"]
    assert not any(each & executable and each & writable for each in loaded)


@pytest.mark.skipif(
    ADDRESS_SANITIZER or THREAD_SANITIZER, reason="the runtime of a sanitizer is a library"
)
def test_the_extension_needs_the_c_library_and_no_other() -> None:
    with open(greenlet._greenlet.__file__, "rb") as file:
        (dynamic,) = ELFFile(file).iter_segments("PT_DYNAMIC")
        needed = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]
    loader = re.compile(r"libc\.|ld-linux|ld-musl")
    assert [name for name in needed if not loader.match(name)] == []


@pytest.mark.parametrize("compiler", [["gcc", "-std=c11"], ["g++", "-x", "c++", "-std=c++17"]])
def test_the_header_compiles_without_a_warning(compiler: list[str], tmp_path: Path) -> None:
    source = tmp_path / "program.c"
    source.write_text(
        """
        #include <Python.h>
        #include <greenlet/greenlet.h>
        PyObject* current(void) {
          if (PyGreenlet_Import() < 0) return NULL;
          PyGreenlet* self = PyGreenlet_GetCurrent();
          if (self == NULL || !PyGreenlet_Check(self)) return NULL;
          if (!PyObject_IsInstance((PyObject*)self, (PyObject*)&PyGreenlet_Type)) return NULL;
          return PyGreenlet_Switch(self, NULL, NULL);
        }
        """
    )
    include = greenlet.get_include()
    flags = ["-c", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-o", "program.o"]
    done = subprocess.run(
        [
            *(*compiler, *flags, f"-I{include}"),
            *("-isystem", sysconfig.get_path("include"), str(source)),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_package_offers_what_its_stub_says() -> None:
    promised = names_in_stub("__init__.pyi")
    assert {name for name in promised if not hasattr(greenlet, name)} == set()
    assert set(greenlet.__all__) <= promised


def test_the_extension_module_offers_what_its_stub_says() -> None:
    offered = set(vars(greenlet._greenlet)) - {
        "__doc__",
        "__file__",
        "__loader__",
        "__name__",
        "__package__",
        "__spec__",
    }
    assert names_in_stub("_greenlet.pyi") == offered


def test_the_type_has_the_attributes_its_stub_says() -> None:
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    (body,) = [
        node.body
        for node in stub.body
        if isinstance(node, ast.ClassDef) and node.name == "greenlet"
    ]
    names = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    names |= {
        node.target.id
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    offered = {name for name in vars(greenlet.greenlet) if not (name[:2] == "__" == name[-2:])} | {
        name for name in names if name[:2] == "__" and hasattr(greenlet.greenlet, name)
    }
    assert names == offered


def functions_of(owner: object) -> list[str]:
    return [
        name
        for name, value in vars(owner).items()
        if callable(value)
        and not isinstance(value, type)
        and getattr(value, "__module__", "") != "_thread"  # before 3.13 they have none
        and (name[:2] != "__" or name[:3] == "__g")
    ]


@pytest.mark.parametrize("owner", [greenlet, greenlet._greenlet, greenlet.greenlet])
def test_every_function_has_a_signature(owner: object) -> None:
    found = {name: inspect.signature(getattr(owner, name)) for name in functions_of(owner)}
    assert found


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (greenlet.greenlet, "(run=None, parent=None)"),
        (greenlet.greenlet.switch, "(self, /, *args, **kwargs)"),
        (greenlet.greenlet.throw, "(self, typ=Ellipsis, val=None, tb=None, /)"),
        (greenlet.greenlet.__getstate__, "(self, /)"),
        (greenlet.greenlet.getcurrent, "()"),
        (greenlet.getcurrent, "()"),
        (greenlet.gettrace, "()"),
        (greenlet.settrace, "(callback, /, *, all_threads=False)"),
        (greenlet.enable_optional_cleanup, "(enabled, /)"),
        (greenlet.get_clocks_used_doing_optional_cleanup, "()"),
        (greenlet.stacks.call_on_thread_stack, "(function, /, *args, **kwargs)"),
    ],
)
def test_inspect_knows_the_signature_of(function: Callable[..., object], signature: str) -> None:
    assert str(inspect.signature(function)) == signature
    assert function.__doc__
    assert "--\n" not in function.__doc__


def test_a_subclass_and_a_bound_method_have_signatures_too() -> None:
    class Task(greenlet.greenlet):
        pass

    assert str(inspect.signature(Task)) == "(run=None, parent=None)"
    assert str(inspect.signature(Task().switch)) == "(*args, **kwargs)"
    assert str(inspect.signature(Task().throw)) == "(typ=Ellipsis, val=None, tb=None, /)"


@pytest.mark.parametrize(
    ("signature", "call"),
    [
        ("throw", lambda: greenlet.getcurrent().throw(typ=ValueError)),  # type: ignore[call-overload]
        ("settrace", lambda: greenlet.settrace(callback=None)),  # type: ignore[call-arg]
    ],
)
def test_what_has_no_name_in_the_signature_is_positional_only(
    signature: str, call: Callable[[], object]
) -> None:
    with pytest.raises(TypeError, match=signature):
        call()


def test_constants_that_the_published_one_has_are_here() -> None:
    for name in ("CONTEXT_VARS", "GC", "STANDARD_THREADING", "TRACING"):
        name = f"GREENLET_USE_{name}"
        assert getattr(greenlet, name) is getattr(greenlet._greenlet, name)
        assert getattr(greenlet, name) == 1


@pytest.mark.parametrize("name", ["tests", "platform"])
def test_packages_that_only_the_published_one_has_are_said_to_be_missing(name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=f"^No module named 'greenlet.{name}'$"):
        importlib.import_module(f"greenlet.{name}")
    assert not hasattr(greenlet, name)


def docstrings_of_stub(file: str) -> dict[str, str]:
    """The docstrings of functions, of classes, and of members of the type; by their names."""
    found: dict[str, str] = {}

    def look(body: list[ast.stmt], prefix: str) -> None:
        for before, node in zip([None, *body], body, strict=False):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                if text := ast.get_docstring(node):
                    found.setdefault(prefix + node.name, text)
                if isinstance(node, ast.ClassDef):
                    look(node.body, f"{node.name}.")
            elif isinstance(before, ast.AnnAssign) and isinstance(node, ast.Expr):
                assert isinstance(node.value, ast.Constant)
                if prefix:
                    found[prefix + ast.unparse(before.target)] = inspect.cleandoc(
                        str(node.value.value)
                    )

    look(ast.parse((PACKAGE / file).read_text()).body, "")
    return found


def test_help_says_what_the_stubs_say() -> None:
    """Editors show the docstrings of stubs, help() those of the extension module."""
    shared = {"greenlet.GreenletExit", "greenlet.error", "greenlet.getcurrent"}
    shared |= {"greenlet.settrace", "greenlet.gettrace", "greenlet.__bool__"}
    told = docstrings_of_stub("__init__.pyi") | docstrings_of_stub("_greenlet.pyi")
    for name, text in told.items():
        if name in shared or name.startswith("_"):
            continue
        owner: object = greenlet if hasattr(greenlet, name.split(".")[0]) else greenlet._greenlet
        for part in name.split("."):
            owner = getattr(owner, part)
        # Those of the extension module have no marks, and no quotes that C would need to escape.
        said = (owner.__doc__ or "").removeprefix("greenlet(run=None, parent=None)\n")
        words, wanted = (each.replace("``", "").replace('"', "'").split() for each in (said, text))
        assert words == wanted, name
    assert {"greenlet.switch", "greenlet.run", "call_on_thread_stack", "error"} <= told.keys()


def test_everything_public_has_a_docstring() -> None:
    undocumented = [
        f"{owner.__name__}.{name}"
        for owner in (greenlet, greenlet.greenlet, greenlet.stacks)
        for name, value in vars(owner).items()
        if name[0] != "_"
        and getattr(value, "__module__", "greenlet") in ("greenlet", "greenlet.stacks")
        and (callable(value) or hasattr(value, "__get__"))
        and not value.__doc__
    ]
    assert undocumented == []


@pytest.mark.parametrize("failing", ["one", "all from there on"])
def test_an_import_that_ran_out_of_memory_can_be_tried_again(failing: str) -> None:
    """The type is the same object each time, and an import may fail when it is half made.

    Only one allocation fails in each attempt. So the code after it has the memory to do harm.
    """
    pytest.importorskip("_testcapi")
    said = run_clean(
        """
        import _imp, _testcapi, importlib.machinery, importlib.util, sysconfig, sys
        from pathlib import Path
        (package,) = importlib.util.find_spec("greenlet").submodule_search_locations
        path = Path(package) / ("_greenlet" + sysconfig.get_config_var("EXT_SUFFIX"))
        name = "greenlet._greenlet"
        loader = importlib.machinery.ExtensionFileLoader(name, str(path))
        spec = importlib.util.spec_from_file_location(name, path, loader=loader)
        failures = 0
        for count in range(1, 10_000):
            # Where PyList_New() finds no memory for the items, free-threaded CPython frees the list
            # with whatever ob_item was there before. That is null in lists that were empty.
            lists = [[] for _ in range(80)]
            del lists
            _testcapi.set_nomemory(count, count + 1 if sys.argv[1] == "one" else 0)
            try:
                module = _imp.create_dynamic(spec)
            except MemoryError:
                failures += 1
            else:
                break
            finally:
                _testcapi.remove_mem_hooks()
        sys.modules[name] = module
        import greenlet
        assert failures > 20, failures  # 3.11 sometimes succeeds although an allocation failed
        assert greenlet.greenlet is module.greenlet
        assert greenlet.greenlet.getcurrent is greenlet.getcurrent
        main = greenlet.getcurrent()
        assert greenlet.greenlet(lambda: greenlet.getcurrent().parent).switch() is main
        print("done")
    """,
        args=[failing],
    )
    assert said == "done"
