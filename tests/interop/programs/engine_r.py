"""R, whose library is called through ctypes as in rpy2: recursion, errors, collections."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from engine_calls import check, finish

home = os.environ.setdefault("R_HOME", "/usr/lib/R")
library = Path(home, "lib", "libR.so")
if not library.exists():
    print(f"skipped: no {library}")
    sys.exit(0)
R = ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
ctypes.c_int.in_dll(R, "R_SignalHandlers").value = 0
arguments = (ctypes.c_char_p * 4)(b"R", b"--vanilla", b"--quiet", b"--no-save")
R.Rf_initEmbeddedR(4, arguments)
R.R_ParseEvalString.restype = ctypes.c_void_p
R.R_ParseEvalString.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
R.Rf_asInteger.argtypes = [ctypes.c_void_p]
GLOBAL = ctypes.c_void_p.in_dll(R, "R_GlobalEnv")


def evaluate(source: bytes) -> int:
    return int(R.Rf_asInteger(R.R_ParseEvalString(source, GLOBAL)))


RECURSION = b"(function() { f <- function(n) if (n == 0) 0L else 1L + f(n - 1L); f(500L) })()"
CAUGHT = b"tryCatch(stop('mine'), error = function(e) nchar(conditionMessage(e)))"
ENDLESS = b"(function() { f <- function() f(); tryCatch(f(), error = function(e) 7L) })()"
COLLECTION = b"(function() { x <- lapply(1:10000, function(i) c(i, i)); gc(); length(x) })()"

# R belongs to the thread that has started it.
check("recursion", lambda: evaluate(RECURSION))
check("error", lambda: evaluate(CAUGHT))
check("endless recursion", lambda: evaluate(ENDLESS))
check("collection", lambda: evaluate(COLLECTION))
finish("R works in greenlets")
