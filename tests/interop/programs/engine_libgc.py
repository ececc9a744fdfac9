"""libgc, which scans the stack of the thread, finds what a greenlet's call holds there."""

from __future__ import annotations

import importlib.util
import sys

from engine_calls import check, finish

spec = importlib.util.spec_from_file_location("scanned", sys.argv[1])
assert spec is not None and spec.loader is not None
scanned = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scanned)
scanned.init()
check("objects found", lambda: scanned.use(lambda: None))
finish("libgc works in greenlets")
