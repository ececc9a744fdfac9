"""The name that pyperf had when some of gevent's benchmarks were written."""

import sys

import pyperf

sys.modules[__name__] = pyperf
