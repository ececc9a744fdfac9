"""The model: a traceback kept a greenlet that had survived its death (3.14, seed 800944380842)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))

PROGRAMS = [
    [
        ("create", 3, 4, None, 0),
        ("create", 1, 9, None, 0),
        ("create", 0, 8, None, 0),
        ("switch", 3, 2, 1, 8, True),
        ("store", 4),
        ("switch", 1, 3, 11, 7, True),
        ("return", 13),
        ("switch", 0, 9, 0, 4, True),
        ("throw", 3, 6, True),
        ("copy_slot", 0, 4),
        ("throw", 5, 0, True),
        ("trace", 2),
        ("throw", 2, 3, True),
        ("throw", 1, 12, True),
        ("throw", 2, 5, True),
    ],
]

if __name__ == "__main__":
    import replay

    replay.main(PROGRAMS)
