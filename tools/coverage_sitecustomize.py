"""sitecustomize.py of the environments of `make coverage`: os._exit() writes the counts of lines.

Exit handlers write them otherwise. Many children of the tests, and of their machines, end by
os._exit().
"""

import os
import sys
from typing import NoReturn

end_at_once = os._exit


def write_counts_and_end(status: int) -> NoReturn:
    """Take the place of os._exit()."""
    module = sys.modules.get("greenlet._greenlet")
    if module is not None and module.__file__ is not None:
        import ctypes  # not at the start: other interpreters cannot import it

        ctypes.PyDLL(module.__file__)["__gcov_dump"]()
    end_at_once(status)


os._exit = write_counts_and_end
