"""An exception in a comparison leaves an OrderedDict with keys in its order that it does not have.

Seen with 3.13, 3.14, 3.15 and free-threaded 3.15.
"""

import random
from collections import OrderedDict

chance = random.Random(1)
raises = False


class Key:
    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        if raises and chance.randrange(4) == 0:
            raise ArithmeticError
        return self.number == other.number

    def __hash__(self):
        return self.number % 3


broken = 0
for _ in range(20_000):
    ordered = OrderedDict()
    raises = True
    try:
        for _ in range(6):
            ordered[Key(chance.randrange(6))] = None
        ordered.pop(Key(2), None)
    except ArithmeticError:
        pass
    raises = False
    try:
        broken += len(ordered) != len(list(ordered))
    except KeyError:
        broken += 1
print(f"{broken} of 20,000 are broken" if broken else "nothing happened")
