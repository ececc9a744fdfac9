"""The module's names, and the type as other code sees it from outside."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from behaviour import (
    Base,
    Greenlet,
    GreenletExit,
    attempt,
    behaviour,
    extension,
    getcurrent,
    in_child_process,
    in_thread,
    library,
    run,
    say,
)


@behaviour
def the_package_lists_its_public_names() -> None:
    say(library.__all__)


@behaviour
def every_name_of_the_interface_is_in_the_package() -> None:
    for name in (
        "CLOCKS_PER_SEC",
        "GREENLET_USE_CONTEXT_VARS",
        "GREENLET_USE_GC",
        "GREENLET_USE_TRACING",
        "GreenletExit",
        "_C_API",
        "__version__",
        "enable_optional_cleanup",
        "error",
        "get_clocks_used_doing_optional_cleanup",
        "getcurrent",
        "gettrace",
        "greenlet",
        "settrace",
    ):
        say(name, type(getattr(library, name)).__name__)


@behaviour
def the_extension_has_the_same_objects_as_the_package() -> None:
    for name in (
        "CLOCKS_PER_SEC",
        "GREENLET_USE_CONTEXT_VARS",
        "GREENLET_USE_GC",
        "GREENLET_USE_TRACING",
        "GreenletExit",
        "_C_API",
        "enable_optional_cleanup",
        "error",
        "get_clocks_used_doing_optional_cleanup",
        "getcurrent",
        "gettrace",
        "greenlet",
        "settrace",
    ):
        say(name, getattr(extension, name) is getattr(library, name))


@behaviour
def the_extension_counts_cleanups_and_main_greenlets() -> None:
    say(type(extension.get_pending_cleanup_count()), type(extension.get_total_main_greenlets()))


@behaviour
def the_version_is_a_string_of_the_third_major_version() -> None:
    say(type(library.__version__), library.__version__.split(".")[0])


@behaviour
def the_feature_constants_are_true() -> None:
    for name in ("GREENLET_USE_CONTEXT_VARS", "GREENLET_USE_GC", "GREENLET_USE_TRACING"):
        say(name, bool(getattr(library, name)), getattr(library, name) == 1)


@behaviour
def the_extension_says_that_threads_are_the_standard_ones() -> None:
    say(extension.GREENLET_USE_STANDARD_THREADING)


@behaviour
def clocks_per_sec_is_a_million() -> None:
    say(library.CLOCKS_PER_SEC)


@behaviour
def optional_cleanup_can_be_turned_off_and_on() -> None:
    say(type(library.get_clocks_used_doing_optional_cleanup()))
    say(library.enable_optional_cleanup(False), library.get_clocks_used_doing_optional_cleanup())
    say(library.enable_optional_cleanup(True))
    say(type(library.get_clocks_used_doing_optional_cleanup()))


@behaviour
def optional_cleanup_takes_any_truth_value() -> None:
    say(attempt(library.enable_optional_cleanup, 0))
    say(library.get_clocks_used_doing_optional_cleanup())
    say(attempt(library.enable_optional_cleanup, "yes"))
    say(type(library.get_clocks_used_doing_optional_cleanup()))


@behaviour
def the_capsule_has_its_name() -> None:
    say(type(library._C_API).__name__, repr(library._C_API))


@behaviour
def greenlet_exit_is_a_base_exception_and_no_exception() -> None:
    say(GreenletExit.__mro__, GreenletExit.__module__, GreenletExit.__qualname__)
    say(issubclass(GreenletExit, Exception))


@behaviour
def error_is_an_exception() -> None:
    say(library.error.__mro__, library.error.__module__, library.error.__qualname__)


@behaviour
def getcurrent_is_a_function_without_arguments() -> None:
    say(attempt(getcurrent, 1))
    say(attempt(getcurrent, current=True))


@behaviour
def gettrace_is_a_function_without_arguments() -> None:
    say(attempt(library.gettrace, 1))


@behaviour
def settrace_takes_exactly_one_argument() -> None:
    say(attempt(library.settrace).split(":")[0])
    say(attempt(library.settrace, None, None).split(":")[0])
    say(attempt(library.settrace, callback=None).split(":")[0])


@behaviour
def the_counters_are_functions_without_arguments() -> None:
    say(attempt(extension.get_pending_cleanup_count, 1))
    say(attempt(extension.get_total_main_greenlets, 1))
    say(attempt(library.get_clocks_used_doing_optional_cleanup, 1))


@behaviour
def getcurrent_creates_the_main_greenlet_of_a_thread() -> None:
    def look() -> tuple[bool, bool, bool]:
        first = getcurrent()
        return first.parent is None, first is getcurrent(), bool(first)

    say(in_thread(look))


@behaviour
def the_header_lies_beside_the_package() -> None:
    say(Path(library.__file__).with_name("greenlet.h").is_file())


@behaviour
def the_header_lies_among_the_headers_of_the_interpreter() -> None:
    version = "python" + sysconfig.get_python_version()
    folders = [Path(sys.prefix, "include", "site", version), Path(sysconfig.get_path("include"))]
    say(any((folder / "greenlet" / "greenlet.h").is_file() for folder in folders))


@behaviour
def the_type_has_its_names() -> None:
    say(Greenlet.__name__, Greenlet.__qualname__, Greenlet.__module__, repr(Greenlet))


@behaviour
def the_type_derives_from_object_alone() -> None:
    say(Greenlet.__mro__, type(Greenlet))


@behaviour
def the_type_carries_the_functions_and_exceptions() -> None:
    for name in ("GreenletExit", "error", "getcurrent", "gettrace", "settrace"):
        say(name, getattr(Greenlet, name) is getattr(library, name))


@behaviour
def the_functions_on_the_type_do_not_bind() -> None:
    main = getcurrent()
    say(Greenlet.getcurrent() is main, main.getcurrent() is main, Greenlet(None).gettrace())


@behaviour
def the_type_has_these_attributes() -> None:
    for name in (
        "__bool__",
        "__dict__",
        "__getstate__",
        "__init__",
        "__new__",
        "__repr__",
        "_stack_saved",
        "dead",
        "gr_context",
        "gr_frame",
        "parent",
        "run",
        "switch",
        "throw",
    ):
        say(name, type(vars(Greenlet)[name]).__name__)


@behaviour
def the_type_cannot_be_changed() -> None:
    say(attempt(setattr, Greenlet, "extra", 1))
    say(attempt(delattr, Greenlet, "error"))


@behaviour
def the_object_is_a_header_and_three_pointers() -> None:
    header = object.__basicsize__
    say(Greenlet.__basicsize__ - header, Greenlet.__itemsize__)


@behaviour
def weak_references_and_dict_lie_behind_the_header() -> None:
    header = object.__basicsize__
    say(Greenlet.__weakrefoffset__ - header, Greenlet.__dictoffset__ - header)


@behaviour
def the_sizes_are_these() -> None:
    say(Greenlet.__basicsize__, Greenlet.__weakrefoffset__, Greenlet.__dictoffset__)


@behaviour
def the_type_is_collectable_and_can_be_subclassed() -> None:
    collectable, subclassable = 1 << 14, 1 << 10
    say(bool(Greenlet.__flags__ & collectable), bool(Greenlet.__flags__ & subclassable))


@behaviour
def a_subclass_with_slots_appends_its_fields() -> None:
    class Slotted(Base):
        __slots__ = ("first", "second")

    say(Slotted.__basicsize__ - Greenlet.__basicsize__)
    made = Slotted()
    made.first = 1
    say(made.first, attempt(lambda: made.second), made.__dict__)


@behaviour
def slots_may_not_repeat_dict_or_weakref() -> None:
    say(attempt(type, "Again", (Greenlet,), {"__slots__": ("__dict__",)}))
    say(attempt(type, "Again", (Greenlet,), {"__slots__": ("__weakref__",)}))


@behaviour
def the_type_is_not_generic_awaitable_or_callable() -> None:
    say(hasattr(Greenlet, "__class_getitem__"), hasattr(Greenlet, "__await__"))
    say(attempt(Greenlet()))


@behaviour
def the_type_tells_how_to_construct_it() -> None:
    say(Greenlet.__doc__.splitlines()[0].split(" -> ")[0])


@behaviour
def methods_and_functions_have_a_doc_string() -> None:
    for named in (Greenlet.switch, Greenlet.throw, getcurrent, library.settrace, library.gettrace):
        say(named.__name__, bool(named.__doc__))


@behaviour
def the_extension_works_from_its_creation_on() -> None:
    in_child_process("""
import glob, importlib.util
(package,) = importlib.util.find_spec("greenlet").submodule_search_locations
(file,) = glob.glob(package + "/_greenlet*.so")
spec = importlib.util.spec_from_file_location("greenlet._greenlet", file)
module = importlib.util.module_from_spec(spec)
print([name for name in ("greenlet", "error", "GreenletExit", "_C_API") if hasattr(module, name)])
print(module.settrace(print), module.settrace(None) is print, module.gettrace())
print(type(module.getcurrent()) is module.greenlet, module.getcurrent().parent)
print(module.greenlet(lambda: "ran").switch())
print(module.get_pending_cleanup_count(), module.get_clocks_used_doing_optional_cleanup())
""")


@behaviour
def a_profile_function_may_use_the_extension_as_soon_as_it_finds_it() -> None:
    in_child_process("""
import sys
def profile(*arguments):
    module = sys.modules.get("greenlet._greenlet")
    if module is not None and not found:
        found.append(module.settrace(lambda *arguments: None))
found = []
sys.setprofile(profile)
import greenlet
sys.setprofile(None)
print(found, greenlet.gettrace() is None)
""")


if __name__ == "__main__":
    run()
