"""What memray has written into a file, as JSON: the peak, and bytes by function of one script.

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
for record in reader.get_allocation_records():
    if record.allocator in FREES:
        continue
    for function, path, _ in record.stack_trace(max_stacks=1):
        if path == script:
            functions[function] += record.size
print(json.dumps({"peak": reader.metadata.peak_memory, "functions": functions}))
