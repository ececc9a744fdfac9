"""The model: a message went while the error of a callback was handled (seed 567243617907)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))

PROGRAMS = [
    [
        ("trace", 2),
        ("create", 5, 0, None, 0),
        ("switch", 2, 13, 2, 9, True),
        ("create", 3, 5, 3, 0),
        ("switch", 1, 11, 4, 13, False),
        ("create", 3, 5, None, 0),
        ("create", 1, 1, 5, 2),
        ("throw", 0, 15, True),
        ("throw", 5, 4, True),
        ("frames", 4),
        ("switch", 0, 2, 10, 11, False),
    ],
]

if __name__ == "__main__":
    import replay

    replay.main(PROGRAMS)
