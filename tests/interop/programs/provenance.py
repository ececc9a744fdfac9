"""Whose greenlet is this? What the programs of this folder check before anything else."""

import os
import sys
from pathlib import Path

import greenlet


def check_greenlet() -> None:
    """Print which greenlet is imported, and stop if it is not the expected one.

    The tests say in EXPECTED_GREENLET which version it has to be; by hand, any will do.
    """
    path = Path(greenlet.__file__)
    print(f"greenlet {greenlet.__version__} on Python {sys.version.split()[0]}")
    expected = os.environ.get("EXPECTED_GREENLET", greenlet.__version__)
    if greenlet.__version__ != expected:
        sys.exit(f"greenlet {expected} was expected")
    if not path.is_relative_to(sys.prefix):
        sys.exit(f"greenlet is not from this environment, but from {path}")
