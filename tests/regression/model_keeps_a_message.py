"""The model: a traceback kept the message of a switch (3.15, seed 597063288243)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))

PROGRAMS = [
    [
        ("trace", 2),
        ("create", 2, 1, None, 0),
        ("switch", 2, 10, 15, 5, False),
        ("call", 15, False),
        ("create", 0, 0, 4, 0),
        ("throw", 0, 12, True),
        ("throw", 2, 0, False),
    ],
]

if __name__ == "__main__":
    import replay

    replay.main(PROGRAMS)
