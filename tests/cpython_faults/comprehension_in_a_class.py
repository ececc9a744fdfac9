"""A class body uses a name, and a comprehension in it has a variable of that name, for a closure.

The compiler inlines the comprehension, and makes a cell for its `x`, where the body has none.
3.13.15 ends by SIGSEGV in STORE_DEREF; 3.11, 3.12 and 3.14 are right.
"""


def function():
    x = 1

    class K:
        a = x, [f() for f in [lambda: x for x in [1, 2]]]  # noqa: B023

        def f(self):
            return x

    return K.a


print(function())
