"""A collection in the middle of an assignment counts a generator's reference twice.

STORE_SUBSCR_DICT, STORE_DEREF, MAP_ADD and SET_ADD give a reference away, and leave it on the value
stack while they drop the old object. If the finalizer of that object collects, gen_traverse()
visits the reference though the frame no longer owns it. Debug builds of 3.15 abort ("refcount is
too small", gc_decref() in Python/gc.c); others may free an object that is in use.
"""

import gc


class Old:
    def __del__(self) -> None:
        gc.collect()


class New:
    def __init__(self) -> None:
        self.cycle = [self]


def generator():
    kept = Old()

    def inner():
        return kept

    yield
    kept = New()  # STORE_DEREF
    yield


for _ in generator():
    pass
print("nothing happened")
