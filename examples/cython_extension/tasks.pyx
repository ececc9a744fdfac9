# cython: language_level=3, freethreading_compatible=True
"""An extension module in Cython: a class over greenlet with a field in C.

    >>> import tasks
    >>> task = tasks.Task(lambda: tasks.pause("first") + tasks.pause("second"))
    >>> task.switch(), task.switch(1), task.switch(2)
    ('first', 'second', 3)
    >>> task.switches
    3
"""

from cpython.object cimport PyObject


cdef extern from "greenlet/greenlet.h":
    # The type, and its instances in C: the fields of Task follow PyGreenlet.
    ctypedef class greenlet.greenlet [object PyGreenlet]:
        pass

    void PyGreenlet_Import() except *
    greenlet PyGreenlet_GetCurrent()
    greenlet PyGreenlet_GetParent(greenlet self)  # in a main greenlet it is NULL
    int PyGreenlet_MAIN(greenlet self) except -1
    object PyGreenlet_Switch(greenlet self, PyObject* args, PyObject* kwargs)


PyGreenlet_Import()


cdef class Task(greenlet):
    """A greenlet that counts how often it was switched to by its method."""

    cdef readonly long switches

    def switch(self, *args):
        self.switches += 1
        return PyGreenlet_Switch(self, <PyObject*>args, NULL)


def pause(value):
    """Hand a value to the parent; return what the next switch back brings."""
    current = PyGreenlet_GetCurrent()
    if PyGreenlet_MAIN(current):
        raise RuntimeError("call this in a greenlet")
    parent = PyGreenlet_GetParent(current)
    arguments = (value,)
    return PyGreenlet_Switch(parent, <PyObject*>arguments, NULL)
