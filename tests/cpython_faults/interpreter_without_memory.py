"""Code that runs in another interpreter while memory is short crashes 3.11, 3.12 and 3.13.

3.11 aborts in an import, 3.12 and 3.13 end by SIGSEGV in a call or an import. Seen with 3.11.7,
3.12.1 and 3.13.15.
"""

import _testcapi
import os
from collections import Counter

try:
    import _interpreters
except ImportError:
    import _xxsubinterpreters as _interpreters

PREPARE = "import threading, functools\ndef call(): return [lambda: 5][0]()"


def end(source, first, last):
    """How a child process ends in which these allocations of another interpreter fail."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        other = _interpreters.create()
        _interpreters.run_string(other, PREPARE)
        _testcapi.set_nomemory(first, last)
        try:
            _interpreters.run_string(other, source)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


for source in "call()", "import json":
    for more in 1, 1 << 30:
        ends = Counter(end(source, number, number + more) for number in range(100))
        print(f"{source}, {more} allocations: {dict(ends)}")
