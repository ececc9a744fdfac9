"""What memray has written into a file, as JSON: the peak, and bytes by function of one script.

With native traces, also whether each stack has the script's functions inside of greenlet's.

memray_report.py FILE SCRIPT
"""

from __future__ import annotations

import json
import sys
from collections import Counter

from memray import AllocatorType, FileReader

FREES = (AllocatorType.FREE, AllocatorType.MUNMAP, AllocatorType.PYMALLOC_FREE)
file, script = sys.argv[1:]
reader = FileReader(file)
functions: Counter[str] = Counter()
joined = reader.metadata.has_native_traces
for record in reader.get_allocation_records():
    if record.allocator in FREES:
        continue
    for function, path, _ in record.stack_trace(max_stacks=1):
        if path == script:
            functions[function] += record.size
    if joined and record.size > 1_000_000:
        names, paths, _ = zip(*record.hybrid_stack_trace(), strict=True)
        where = [k for k, name in enumerate(names) if "greenlet" in name]
        joined = script in paths and bool(where) and paths.index(script) < where[0]
found = {"peak": reader.metadata.peak_memory, "functions": functions, "joined": joined}
print(json.dumps(found))
