"""Shows the greenlets of running, hung and crashed programs.

Without a command: version and build, for reports of faults. With an option: what a build of a
program that uses the C API needs to know.
"""

import argparse
import platform
import shlex
import sys
import sysconfig
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import greenlet
from greenlet import stacks

VERSION = f"{greenlet.__version__} ({greenlet.__implementation__})"

#: Each command, the module that has it, and what it does. The module has add_arguments(parser) and
#: run(options), which returns the exit status.
COMMANDS = {
    "ps": ("_outside", "list the greenlets of a process or a core file, a line each"),
    "pstree": ("_outside", "show them with their stacks, children below their parents"),
    "count": ("_outside", "tell how many there are in each thread"),
    "dump": ("_outside", "write all that is known of them as JSON"),
    "trace": ("_timeline", "run a program and record its switches on a timeline"),
}


def includes() -> str:
    """The options of a compiler for Python.h and <greenlet/greenlet.h>, quoted for a shell."""
    paths = sysconfig.get_paths()
    folders = dict.fromkeys((paths["include"], paths["platinclude"], greenlet.get_include()))
    return shlex.join(f"-I{folder}" for folder in folders)


#: Each option that prints something for builds, what that is, and the option's description.
ABOUT_BUILDS = {
    "--includes": (includes, "print a compiler's -I options for Python.h and greenlet.h"),
    "--cmake-dir": (lambda: _folder("cmake"), "print the folder for CMake's greenlet_DIR"),
    "--pkgconfig-dir": (lambda: _folder("pkgconfig"), "print the folder for PKG_CONFIG_PATH"),
}


def _folder(name: str) -> str:
    return str(Path(greenlet.get_include()).with_name(name))


def _version_with_label() -> str:
    from importlib import metadata  # takes long to import, and the commands do not need it

    try:
        return metadata.version("greenlet")
    except metadata.PackageNotFoundError:  # the package alone, without what an installer notes
        return greenlet.__version__


def report() -> None:
    """Print what tells this installation from others."""
    counts = stacks.statistics()._asdict()
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    lines = {
        "greenlet": _version_with_label(),
        "implementation": greenlet.__implementation__,
        "interpreter": f"{platform.python_implementation()} {sys.version}"
        + (" free-threaded" if free_threaded else ""),
        "platform": f"{platform.machine()} {platform.platform()}",
        "extension": greenlet._greenlet.__file__,
        "headers": greenlet.get_include(),
        "commands for gdb": f"source {Path(greenlet.__file__).with_name('gdb.py')}",
        "stack size": f"{stacks.get_default_size():,} bytes of C stack",
        "stacks": ", ".join(f"{number} {what}" for what, number in counts.items()),
    }
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m greenlet", description=__doc__)
    parser.add_argument("--version", action="version", version=VERSION)
    about_builds = parser.add_mutually_exclusive_group()
    for option, (function, summary) in ABOUT_BUILDS.items():
        about_builds.add_argument(
            option, dest="about", action="store_const", const=function, help=summary
        )
    commands = parser.add_subparsers(dest="command", title="commands")
    arguments = sys.argv[1:] if arguments is None else arguments
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name in arguments[:1]:  # the others need not be imported
            import_module(f"greenlet.{module}").add_arguments(command)
    options = parser.parse_args(arguments)
    if options.command is None:
        if options.about is None:
            report()
        else:
            print(options.about())
        return 0
    status: int = import_module(f"greenlet.{COMMANDS[options.command][0]}").run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
