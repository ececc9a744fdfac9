"""What a process does whose instructions guard.py counts: `repeat.py NAME LOOPS`."""

import gc
import sys

from workloads import WORKLOADS

WARM_UP = 256  # more often than the specializing interpreter waits, and our pool looks at all of it

if __name__ == "__main__":
    gc.disable()  # when it collects depends on all that was allocated before
    run = WORKLOADS[sys.argv[1]].run
    run(WARM_UP)
    run(int(sys.argv[2]))
