"""A function that is made while memory is short crashes 3.12 and 3.13.

Seen with 3.12.1 and 3.13.15.
"""

import _testcapi


def outer(a=1):
    def inner(b=2, *, c=3):
        return a

    return inner


kept = []
for n in range(40):
    _testcapi.set_nomemory(n, n + 1)
    try:
        kept.append(outer())
    except MemoryError:
        pass
    finally:
        _testcapi.remove_mem_hooks()
print("nothing happened")
