"""V8, by STPyV8: functions, exceptions, recursion to the end, and calls back into Python."""

from __future__ import annotations

import STPyV8
from engine_calls import check, finish, in_greenlet, refused


def evaluate(source: str, **names: object) -> object:
    context = STPyV8.JSContext(names) if names else STPyV8.JSContext()
    with context:
        return context.eval(source)


RECURSION = "function f(n) { return n ? 1 + f(n - 1) : 0 }; f(500)"
ENDLESS = "function f() { return f() + 1 }; try { f() } catch (e) { e.name }"
CAUGHT = "try { null.field } catch (e) { e.name }"
COLLECTION = "let a = []; for (let i = 0; i < 100000; ++i) a.push({i}); a.length"

check("recursion", lambda: evaluate(RECURSION))
check("endless recursion", lambda: evaluate(ENDLESS))
check("exception", lambda: evaluate(CAUGHT))
check("collection", lambda: evaluate(COLLECTION))

# Only once, because contexts that hold Python objects crash when V8 collects them, with or
# without greenlets.
assert "cannot switch" in str(in_greenlet(lambda: evaluate("f()", f=refused)))
finish("V8 works in greenlets")
