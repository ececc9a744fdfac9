"""``python -m greenlet trace``: run a program, and record its switches on a timeline."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "python -m greenlet trace [-o FILE] [--limit N] [-q] [-m] PROGRAM [ARGUMENT ...]"
    parser.description = (
        "Run a program, and record which of its greenlets runs when. The page opens in a browser;"
        " trace events (.json) open in Perfetto (ui.perfetto.dev) and in Chrome (chrome://tracing)."
    )
    parser.add_argument(
        "-o",
        "--output",
        action="append",
        metavar="FILE",
        help="what to write: FILE.html, FILE.json or FILE.json.gz; may be given more than once"
        " (default: PROGRAM-timeline.html)",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="keep N switches (default: 4,000,000, which are 64 MB); later ones are only counted",
    )
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="do not tell at the end what was recorded"
    )
    parser.add_argument(
        "-m",
        "--module",
        action="store_true",
        help="PROGRAM is the name of a module, as for python -m",
    )
    parser.add_argument("program", metavar="PROGRAM", help="the program to run")
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="what it gets in sys.argv"
    )


def run(options: argparse.Namespace) -> int:
    """Run the program. Its exit status becomes that of the process."""
    from . import _timeline_run

    return _timeline_run.run(options)
