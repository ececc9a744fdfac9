"""A child hangs at its exit if it was forked while faulthandler's timer was set.

_PyFaulthandler_Fini() waits for the timer's thread, which the child does not have. 3.13 to 3.15.
"""

import faulthandler
import os
import signal
import sys
import time

faulthandler.dump_traceback_later(100)
child = os.fork()
if child == 0:
    sys.exit(0)
for _ in range(50):
    if os.waitpid(child, os.WNOHANG)[0]:
        print("nothing happened")
        break
    time.sleep(0.1)
else:
    os.kill(child, signal.SIGKILL)
    print("the child hangs")
