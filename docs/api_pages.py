"""Sphinx directives for the reference: they take what they show from the sources.

    .. python-module:: greenlet.stacks      the module's docstring
    .. python-api:: greenlet.stacks         signatures and docstrings of these names
       trim set_size
    .. c-api::                              declarations and comments of include/greenlet/greenlet.h
       PyGreenlet_New

Signatures and docstrings are those of the stub, if a module has one, and otherwise of the module.
They are read, not imported: the site is made without a compiler. Every public name must be on some
page, else the build warns. In Markdown these directives stand in an ``eval-rst`` block.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeAlias

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

SOURCES = Path(__file__).resolve().parent.parent / "src"
HEADER = SOURCES.parent / "include" / "greenlet" / "greenlet.h"
MODULES = ("greenlet", "greenlet.stacks", "greenlet.inspect", "greenlet.timeline")

# Of the names that begin with an underscore, those that are documented.
DOCUMENTED = ("__bool__", "__implementation__", "__version__", "_C_API", "_stack_saved")
# Of the C API: parts of its implementation, and the other name of the struct of PyGreenlet.
INTERNAL_C = (
    "_greenlet",
    "implementation_ptr_t",
    "PyGreenlet_CAPI_import",
    "PyGreenlet_CAPI_table",
)

Definition: TypeAlias = ast.FunctionDef | ast.ClassDef | ast.AnnAssign


def is_public(name: str) -> bool:
    return name[0] != "_" or name in DOCUMENTED


class Module:
    """What a module defines, by name; overloads are several definitions of one name."""

    def __init__(self, name: str) -> None:
        self.name = name
        parts = name.split(".")
        folder = SOURCES.joinpath(*parts)
        stem = folder / "__init__" if folder.is_dir() else folder
        stub = stem.with_suffix(".pyi")
        self.path = stub if stub.exists() else stem.with_suffix(".py")
        self.tree = ast.parse(self.path.read_text())
        self.definitions = definitions(self.tree.body)
        self.imports: dict[str, tuple[str, str]] = {}
        package = name if folder.is_dir() else name.rpartition(".")[0]
        # Also those in an `else`, where checkers of types see something else.
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.level and node.module:
                for each in node.names:
                    self.imports[each.asname or each.name] = f"{package}.{node.module}", each.name

    def find(self, name: str) -> tuple[list[Definition], dict[str, ast.expr]]:
        """The definitions of a name, which may be imported, and the aliases of types there."""
        if name in self.definitions:
            return self.definitions[name], self.aliases()
        module, original = self.imports[name]
        return module_of(module).find(original)

    def aliases(self) -> dict[str, ast.expr]:
        """The names of types that are written out in signatures: TypeAlias."""
        return {
            name: node.value
            for name, (node, *_) in self.definitions.items()
            if isinstance(node, ast.AnnAssign)
            and node.value is not None
            and ast.unparse(node.annotation) == "TypeAlias"
        }

    def public(self) -> list[str]:
        """The names that a page must have."""
        if self.path.suffix == ".pyi":  # its __all__ is what `import *` takes
            return [name for name in self.definitions if is_public(name)]
        (names,) = [
            ast.literal_eval(node.value)
            for node in self.tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        return list(names)


@cache
def module_of(name: str) -> Module:
    return Module(name)


def definitions(body: list[ast.stmt]) -> dict[str, list[Definition]]:
    """Functions, classes and annotated attributes."""
    found: dict[str, list[Definition]] = {}
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            if not any(ast.unparse(each).endswith(".setter") for each in node.decorator_list):
                found.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.setdefault(node.target.id, []).append(node)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            annotated = ast.AnnAssign(node.targets[0], ast.Name("Final"), node.value, 1)
            found.setdefault(node.targets[0].id, []).append(annotated)
    return found


def texts(body: list[ast.stmt]) -> dict[str, str]:
    """The docstrings of attributes: the string that follows them."""
    found = {}
    for before, node in zip(body, body[1:], strict=False):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            target: ast.expr | None = before.target if isinstance(before, ast.AnnAssign) else None
            if isinstance(before, ast.Assign):
                target = before.targets[0]
            if isinstance(target, ast.Name | ast.Attribute):
                name = target.id if isinstance(target, ast.Name) else target.attr
                found[name] = inspect.cleandoc(str(node.value.value))
    return found


def attributes_of_instances(class_: ast.ClassDef) -> dict[str, tuple[str, str]]:
    """The public attributes that __init__ sets, with a type if it has one, and their docstrings."""
    found = {}
    for method in class_.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            told = texts(method.body)
            for node in method.body:
                target: ast.expr | None = node.target if isinstance(node, ast.AnnAssign) else None
                if isinstance(node, ast.Assign):
                    target = node.targets[0]
                if isinstance(target, ast.Attribute) and is_public(target.attr):
                    kind = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
                    found[target.attr] = kind, told.get(target.attr, "")
    return found


# --- what is shown of Python -----------------------------------------------------------------


class Types(ast.NodeTransformer):
    """Writes the types of annotations with their full names, and aliases of types in full."""

    def __init__(self, aliases: dict[str, ast.expr]) -> None:
        self.aliases = aliases

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.aliases:
            copy = ast.parse(ast.unparse(self.aliases[node.id]), mode="eval").body
            expanded = self.visit(copy)
            assert isinstance(expanded, ast.expr)
            return expanded
        if node.id == "type":  # not one of the attributes of this name; ~ lets it be shown alone
            return ast.UnaryOp(ast.Invert(), ast.Name("builtins.type"))
        return ast.Name(whole_names().get(node.id, node.id))

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return self.visit_Name(ast.Name(node.attr)) if node.attr in whole_names() else node

    def text(self, node: ast.expr) -> str:
        # From a copy: the transformer changes it.
        return ast.unparse(self.visit(ast.parse(ast.unparse(node), mode="eval").body))


@cache
def whole_names() -> dict[str, str]:
    """The classes, by their short names."""
    found = {}
    for module in map(module_of, MODULES):
        for name in module.public():
            if isinstance(module.find(name)[0][0], ast.ClassDef):
                found[name] = f"{module.name}.{name}"
    return found


def signature(node: ast.FunctionDef, types: Types, is_method: bool) -> str:
    """What is in the brackets, and the type of the result."""
    arguments = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(arguments, ast.FunctionDef)
    given = arguments.args
    if is_method:
        del (given.posonlyargs or given.args)[0]
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    for argument in every:
        if argument is not None and argument.annotation is not None:
            argument.annotation = ast.Name(types.text(argument.annotation))
    result = types.text(node.returns) if node.returns is not None else ""
    if "contextmanager" in map(ast.unparse, node.decorator_list):
        result = result.replace("Iterator[", "AbstractContextManager[")
    return f"({ast.unparse(given)})" + (f" -> {result}" if node.name != "__init__" else "")


class Links:
    """Turns ``name`` and ``name()`` in docstrings into links, if a page has the name."""

    def __init__(self, module: str, class_: ast.ClassDef | None = None) -> None:
        self.names: dict[str, str] = {}
        for other in MODULES:
            for name in module_of(other).public():
                full = f"{other}.{name}"
                self.names[full] = self.names[full.removeprefix("greenlet.")] = full
                if other in (module, "greenlet") or name in whole_names():
                    self.names[name] = full
        self.names |= {name: f"{module}.{name}" for name in module_of(module).public()}
        if class_ is not None:
            members = [*definitions(class_.body), *attributes_of_instances(class_)]
            prefix = f"{module}.{class_.name}."
            self.names |= {name: prefix + name for name in members if is_public(name)}

    def text(self, docstring: str, itself: str = "") -> list[str]:
        """The lines; a text has no links to what it is the text of."""

        def link(match: re.Match[str]) -> str:
            name, brackets = match.groups()
            full = self.names.get(name, "")
            is_class = full.rpartition(".")[2][:1].isupper()
            if full in ("", itself) or (brackets and not is_class and not is_function(full)):
                return match[0]
            return f":py:obj:`{name}{brackets} <{full}>`"

        return re.sub(r"``([\w.]+)((?:\(\))?)``", link, docstring).splitlines()


def is_function(full: str) -> bool:
    """Whether a full name is that of a function or method."""
    module = max((name for name in MODULES if full.startswith(f"{name}.")), key=len)
    name, *members = full.removeprefix(f"{module}.").split(".")
    node = module_of(module).find(name)[0][0]
    for member in members:
        found = definitions(node.body).get(member) if isinstance(node, ast.ClassDef) else None
        if not found:
            return False
        node = found[0]
    return isinstance(node, ast.FunctionDef) and "property" not in map(
        ast.unparse, node.decorator_list
    )


def indented(lines: list[str]) -> list[str]:
    return [f"   {line}".rstrip() for line in lines]


def show(module: Module, name: str) -> Iterator[str]:
    """The reStructuredText for a name of a module."""
    nodes_, aliases = module.find(name)
    first, types, links = nodes_[0], Types(aliases), Links(module.name)
    if isinstance(first, ast.FunctionDef):
        yield from show_function("function", nodes_, types, links)
    elif isinstance(first, ast.ClassDef):
        yield from show_class(module, first, types)
    else:
        kind = types.text(first.annotation)
        kind = kind.removeprefix("Final[").removesuffix("]") if "[" in kind else ""
        text = texts(module.tree.body).get(name) or comment_above(module, name)
        yield from show_value("data", name, kind, links.text(text))


def comment_above(module: Module, name: str) -> str:
    """The comment ``#:`` above an assignment."""
    found = re.search(rf"((?:^#: .*\n)+){name} = ", module.path.read_text(), re.MULTILINE)
    return found[1].replace("#: ", "") if found else ""


def show_value(directive: str, name: str, kind: str, text: list[str]) -> Iterator[str]:
    yield f".. py:{directive}:: {name}"
    if kind:
        yield f"   :type: {kind}"
    yield ""
    yield from indented(text)
    yield ""


def show_function(
    directive: str, overloads: list[Definition], types: Types, links: Links
) -> Iterator[str]:
    first = f".. py:{directive}:: "
    told: list[str] = []
    decorators: set[str] = set()
    for number, node in enumerate(overloads):
        assert isinstance(node, ast.FunctionDef)
        decorators = {ast.unparse(each) for each in node.decorator_list}
        bound = directive == "method" and "staticmethod" not in decorators
        prefix = " " * len(first) if number else first
        yield f"{prefix}{node.name}{signature(node, types, bound)}"
        text = ast.get_docstring(node) or ""
        told += [*links.text(text, links.names.get(node.name, "")), ""] if text else []
    if "staticmethod" in decorators:
        yield "   :staticmethod:"
    yield ""
    yield from indented(told)
    yield ""


def show_class(module: Module, node: ast.ClassDef, types: Types) -> Iterator[str]:
    inner: list[str] = []
    told, bases = texts(node.body), [ast.unparse(base) for base in node.bases]
    links = Links(module.name, node)
    start = [""]
    for name, members in definitions(node.body).items():
        member = members[0]
        text = links.text(told.get(name, ""))
        if name == "__init__" and isinstance(member, ast.FunctionDef) and member.args.args[1:]:
            # What only the module itself makes is shown without its arguments.
            start = [signature(member, types, True)] if module.path.suffix == ".pyi" else start
        elif not is_public(name):
            continue
        elif isinstance(member, ast.AnnAssign):
            inner += show_value("attribute", name, types.text(member.annotation), text)
        elif isinstance(member, ast.FunctionDef) and "property" in map(
            ast.unparse, member.decorator_list
        ):
            kind = types.text(member.returns) if member.returns else ""
            text = links.text(ast.get_docstring(member) or "")
            inner += show_value("property", name, kind, text)
        else:
            inner += show_function("method", members, types, links)
    for name, (kind, text_) in attributes_of_instances(node).items():
        kind = types.text(ast.parse(kind, mode="eval").body) if kind else ""
        inner += show_value("attribute", name, kind, links.text(text_))
    is_error = {"Exception", "BaseException"} & set(bases)
    yield f".. py:{'exception' if is_error else 'class'}:: {node.name}{start[0]}"
    yield ""
    yield from indented(
        [f"Bases: {', '.join(f'``{base}``' for base in bases)}", ""] if bases else []
    )
    yield from indented(links.text(ast.get_docstring(node) or ""))
    yield ""
    yield from indented(inner)


# --- what is shown of C ----------------------------------------------------------------------


class CName(NamedTuple):
    """A name of the header: how it is declared, and what its comment says."""

    directive: str
    declaration: str
    text: str


@cache
def c_names() -> dict[str, CName]:
    """The names of the header, in its order."""
    header = HEADER.read_text()
    header = header[header.index('extern "C" {') : header.rindex("#ifdef __cplusplus")]
    (table,) = re.findall(r"typedef struct PyGreenlet_CAPI \{(.*?)\}", header, re.DOTALL)
    # Name of a pointer of the table: what it returns, and what it takes.
    functions = {
        name: (result, arguments)
        for result, name, arguments in re.findall(r"(\S+) \(\*(\w+)\)\(([^)]*)\);", table)
    }
    pointers = re.findall(r"^ *(\w+\*) (\w+);$", table, re.MULTILINE)
    objects = {name: kind for kind, name in pointers}
    found: dict[str, CName] = {}
    text = ""
    piece = re.compile(
        r"/\* (?P<comment>.*?) \*/(?P<beside>\n?)"
        r"|#define (?P<macro>\w+)(?P<value>(?:\(\.\.\.\))?[^\n/]*)(?:/\* (?P<after>.*?) \*/)?"
        r"|typedef struct \w+ \{(?P<fields>.*?)\} (?P<struct>\w+);"
        r"|typedef void \(\*(?P<hook>\w+)\)\((?P<taken>[^)]*)\);"
        r"|static inline (?P<result>\w+) (?P<function>\w+)\((?P<arguments>[^)]*)\) \{.*?\n\}"
        r"|\n\n",
        re.DOTALL,
    )
    for match in piece.finditer(header):
        if match["comment"] is not None:
            text = re.sub(r"\n \* ?", "\n", match["comment"]).strip()
        elif name := match["macro"]:
            value = match["value"].strip()
            pointer = re.search(r"PyGreenlet_CAPI_table->(\w+)", value)
            told = match["after"] or text
            if pointer and pointer[1] in functions:
                result, arguments = functions[pointer[1]]
                found[name] = CName("function", f"{result} {name}({arguments})", told)
            elif pointer:
                kind = objects[pointer[1]].removesuffix("*" if "*Py" in value else "")
                found[name] = CName("var", f"{kind} {name}", told)
            elif value == "PyGreenlet_CAPI_import":
                found[name] = CName("function", f"int {name}(void)", told)
            elif value in found:  # another name of it
                other = found[value]
                found[name] = other._replace(declaration=other.declaration.replace(value, name))
            elif value.startswith("(...)"):
                found[name] = CName("function", f"int {name}(PyObject* op)", told)
            else:
                value = "" if name.endswith("_NUM") else f"\n\nIts value is ``{value}``."
                found[name] = CName("macro", name, told + value)
        elif name := match["struct"]:
            found[name] = CName("struct", name, text)
            for field in re.findall(r"^ +(.*?)(?:;| /\*).*$", match["fields"], re.MULTILINE):
                if name == "PyGreenlet" and field != "PyObject_HEAD":
                    found[f"{name}.{field.split()[-1]}"] = CName("member", field, "")
        elif name := match["hook"]:
            declared = f"void (*{name})({match['taken']})"
            found[name] = CName("type", declared, text)
        elif name := match["function"]:
            declared = f"{match['result']} {name}({match['arguments']})"
            found[name] = CName("function", declared, text)
        else:
            text = ""
    return {name: each for name, each in found.items() if name not in INTERNAL_C}


def show_c(names: list[str]) -> Iterator[str]:
    """The reStructuredText for names of the header that share a comment."""
    name, *same = names
    declared = c_names()[name]
    # The comments of functions begin with their types, which the declaration has already.
    text = re.sub(r"^[\w*]+ \([^)]*\)(, not a pointer)?: ", "", declared.text)
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", text[:1].upper() + text[1:])
    text = text.replace("\n- ", "\n\n- ", 1)

    def link(match: re.Match[str]) -> str:
        known = c_names().get(match[1])
        if known is None or match[1] in names:
            return match[0]
        role = {"function": "func", "var": "data"}.get(known.directive, known.directive)
        return f":c:{role}:`{match[1]}`"

    text = re.sub(r"(?<![\w`&])(PyGreenlet\w*|PyExc_Greenlet\w+)(?:\(\))?(?![\w`])", link, text)
    first = f".. c:{declared.directive}:: "
    yield first + declared.declaration
    for other in same:
        yield " " * len(first) + c_names()[other].declaration
    yield ""
    yield from indented(text.splitlines())
    yield ""
    for field, member in c_names().items():
        if field.startswith(f"{name}."):
            yield f"   .. c:member:: {member.declaration}"
            yield ""


# --- the directives ---------------------------------------------------------------------------


class FromSources(SphinxDirective):
    """What the three directives share."""

    has_content = True

    def parsed(self, lines: list[str], source: Path) -> list[nodes.Node]:
        self.env.note_dependency(str(source))
        self.env.note_dependency(__file__)
        holder = nodes.container()
        # Errors in a docstring are reported for its file.
        content = StringList(lines, source=str(source))
        self.state.nested_parse(content, 0, holder)
        return [*holder.children]

    def note(self, module: str, names: list[str]) -> None:
        shown = self.env.domaindata.setdefault("greenlet-api", {})
        shown.setdefault(self.env.docname, []).extend((module, name) for name in names)


class PythonModule(FromSources):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = module_of(self.arguments[0])
        # The docstring is that of the module, also where a stub has the signatures.
        text = ast.get_docstring(ast.parse(module.path.with_suffix(".py").read_text())) or ""
        lines = [f".. py:module:: {module.name}", "", *Links(module.name).text(text)]
        return self.parsed(lines, module.path)


class PythonApi(FromSources):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = module_of(self.arguments[0])
        names = " ".join(self.content).split()
        self.note(module.name, names)
        lines = [f".. py:currentmodule:: {module.name}", ""]
        for name in names:
            lines += show(module, name)
        return self.parsed(lines, module.path)


class CApi(FromSources):
    def run(self) -> list[nodes.Node]:
        names: list[str] = []
        for name in " ".join(self.content).split():  # *_NUM: all that end so
            every = [each for each in c_names() if each.endswith(name[1:])]
            names += every if name[0] == "*" else [name]
        self.note("C", names)
        groups = groupby(names, lambda name: (c_names()[name].directive, c_names()[name].text))
        lines = [line for _, group in groups for line in show_c([*group])]
        return self.parsed(lines, HEADER)


def look_for_missing_names(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn about public names that are on no page, or on two."""
    shown = [each for page in env.domaindata.get("greenlet-api", {}).values() for each in page]
    wanted = [(module, name) for module in MODULES for name in module_of(module).public()]
    wanted += [("C", name) for name in c_names() if "." not in name]
    for module, name in wanted:
        if (count := shown.count((module, name))) != 1:
            logging.getLogger(__name__).warning(f"{name} of {module} is shown {count} times")


def forget(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    env.domaindata.get("greenlet-api", {}).pop(page, None)


def merge(app: Sphinx, env: BuildEnvironment, pages: set[str], other: BuildEnvironment) -> None:
    shown = env.domaindata.setdefault("greenlet-api", {})
    shown |= {
        page: names
        for page, names in other.domaindata.get("greenlet-api", {}).items()
        if page in pages
    }


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("python-module", PythonModule)
    app.add_directive("python-api", PythonApi)
    app.add_directive("c-api", CApi)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("env-check-consistency", look_for_missing_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
