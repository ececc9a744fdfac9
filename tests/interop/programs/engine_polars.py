"""polars, whose Rust code grows the stack by `stacker`, is as fast as in the main greenlet."""

from __future__ import annotations

import time

import polars
from engine_calls import check, finish, in_greenlet

frame = polars.DataFrame({"a": [1, 2, 3]})


def deep(levels: int = 300) -> list[int]:
    expression = polars.col("a")
    for _ in range(levels):
        expression = expression + 1
    return list(frame.select(expression).to_series().to_list())


def seconds(function: object) -> float:
    begin = time.perf_counter()
    assert callable(function)
    function()
    return time.perf_counter() - begin


check("lazy", lambda: frame.lazy().filter(polars.col("a") > 1).collect().height, threads=True)
check("SQL", lambda: polars.SQLContext(t=frame).execute("select sum(a) from t", eager=True).item())
check("deep", lambda: deep(100), threads=True)
assert deep() == in_greenlet(deep)
main = min(seconds(deep) for _ in range(3))
call = min(seconds(lambda: in_greenlet(deep)) for _ in range(3))
print(f"300 levels: {main:.2f} s in main, {call:.2f} s by the call")
assert call < 2 * main + 0.5
finish("polars works in greenlets")
