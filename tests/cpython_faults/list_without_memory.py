"""PyList_New() frees a list with an unset array when there is no memory for the array.

Free-threaded builds of 3.14 and 3.15: the list object is new, not from the free list, and
list_allocate_array() returns null. list_dealloc() then reads `ob_item`. Debug builds fill new
memory with 0xCD, and crash.
"""

import _testcapi

TEXT = "a b c d e f"

split = TEXT.split
kept = [[] for _ in range(1000)]  # the free list is empty now
for n in range(40):
    _testcapi.set_nomemory(n, n + 1)
    try:
        kept.append(split())
    except MemoryError:
        pass
    finally:
        _testcapi.remove_mem_hooks()
print("nothing happened")
