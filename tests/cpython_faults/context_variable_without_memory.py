"""ContextVar.set() crashes 3.11 and 3.12 without memory for a first context, or for a token.

context_new_empty() untracks an object that it has not tracked; PyContextVar_Set() goes on with a
null token.
"""

import _testcapi
import contextvars

variable = contextvars.ContextVar("variable")
for n in range(10):
    _testcapi.set_nomemory(n, 0)
    try:
        variable.set(1)
    except MemoryError:
        pass
    finally:
        _testcapi.remove_mem_hooks()
print("nothing happened")
