# cython: freethreading_compatible=True
"""Extension classes over greenlet, as Cython programs write them: fields of their own behind it."""

from cpython.ref cimport PyObject


cdef extern from "greenlet/greenlet.h":
    ctypedef class greenlet.greenlet [object PyGreenlet]:
        pass

    void PyGreenlet_Import()
    bint PyGreenlet_Check(object)
    greenlet PyGreenlet_New(PyObject* run, PyObject* parent)
    greenlet PyGreenlet_GetCurrent()
    object PyGreenlet_Switch(greenlet self, PyObject* args, PyObject* kwargs)
    object PyGreenlet_Throw(greenlet self, PyObject* typ, PyObject* val, PyObject* tb)
    int PyGreenlet_SetParent(greenlet self, greenlet parent) except -1
    int PyGreenlet_ACTIVE(greenlet self) except -1
    greenlet PyGreenlet_GetParent(greenlet self)


PyGreenlet_Import()


cdef class Task(greenlet):
    """Counts what it is sent; `kept` may close a cycle through it."""

    cdef readonly long received
    cdef public object kept
    cdef double[8] squares

    def __cinit__(self, *args, **kwargs):
        for index in range(8):
            self.squares[index] = index * index

    def run(self, first):
        item = first
        try:
            while True:
                self.received += 1
                item = self.hand_over(item)
        finally:
            self.kept.append(("ended", self.received, self.sum_of_squares()))

    cdef object hand_over(self, object item):
        args = (item,)
        return PyGreenlet_Switch(PyGreenlet_GetParent(self), <PyObject*>args, NULL)

    cpdef double sum_of_squares(self):
        cdef double total = 0
        for index in range(8):
            total += self.squares[index]
        return total

    @property
    def active(self):
        return PyGreenlet_ACTIVE(self) == 1


cdef class Named(Task):
    """One level more, with a field behind the fields."""

    cdef public str name


cdef class Bare(greenlet):
    """No field that the collector has to know of: Cython makes no function for it."""

    cdef readonly int number


def current():
    return PyGreenlet_GetCurrent()


def call_in_greenlet(function, *args):
    return PyGreenlet_Switch(PyGreenlet_New(<PyObject*>function, NULL), <PyObject*>args, NULL)


def end(greenlet task, exception):
    return PyGreenlet_Throw(task, <PyObject*>exception, NULL, NULL)


def adopt(greenlet child, greenlet parent):
    PyGreenlet_SetParent(child, parent)


def numbers(long count):
    """A generator that switches between its values."""
    for number in range(count):
        PyGreenlet_Switch(PyGreenlet_GetParent(PyGreenlet_GetCurrent()), NULL, NULL)
        yield number


cdef class Guard:
    """A `with` statement whose ends switch."""

    cdef list log

    def __init__(self, log):
        self.log = log

    def __enter__(self):
        self.log.append("enter")
        PyGreenlet_Switch(PyGreenlet_GetParent(PyGreenlet_GetCurrent()), NULL, NULL)

    def __exit__(self, *exc_info):
        PyGreenlet_Switch(PyGreenlet_GetParent(PyGreenlet_GetCurrent()), NULL, NULL)
        self.log.append("exit")
