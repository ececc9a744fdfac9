"""Qt's JavaScript, by PySide6: recursion, exceptions, and one engine for each greenlet."""

from __future__ import annotations

import sys

from engine_calls import check, finish
from PySide6.QtCore import QCoreApplication
from PySide6.QtQml import QJSEngine

application = QCoreApplication(sys.argv)
shared = QJSEngine()

RECURSION = "(function f(n) { return n ? 1 + f(n - 1) : 0 })(200)"
ENDLESS = "(function f() { try { return f() + 1 } catch (e) { return e.name } })()"


def fresh(source: str) -> str:
    engine = QJSEngine()  # it owns the strings that it returns
    return str(engine.evaluate(source).toString())


check("a fresh engine", lambda: fresh("1 + 1"), threads=True)
check("recursion", lambda: fresh(RECURSION), threads=True)
check("recursion in a shared engine", lambda: shared.evaluate(RECURSION).toString())
check("exception", lambda: fresh("try { null.field } catch (e) { e.name }"), threads=True)
check("endless recursion", lambda: "RangeError" in fresh(ENDLESS))
finish("Qt's JavaScript works in greenlets")
