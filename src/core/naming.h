// What greenlets, callables and classes are called, found without running any Python code: for
// tools that look in the middle of a switch. The names are of the class str itself.
//
// On free-threaded builds these functions may detach the thread, where they wait for another one
// that changes the attributes of the same object.
#pragma once

#include <Python.h>

#include "core/greenlet.h"
#include "core/ref.h"

namespace greenlet::core {

// The qualified name of a class. Empty if there is no memory.
Ref name_of_type(PyTypeObject* type) noexcept;

// The name that the greenlet has been given: by inspect.set_name(), or in its attribute `name`, if
// that is a str in its own dict and not empty. Empty if there is none.
Ref name_given_to(const Greenlet& greenlet) noexcept;

// The qualified name of the function that `greenlet` runs or is to run, where `run` is its callable
// (null for a main greenlet). Behind bound methods and functools.partial objects, it is the name of
// the function. A method of the greenlet's own class would tell nothing where libraries have
// classes of their own. So the function that such a greenlet has been given counts: its attribute
// `_run` (gevent), or the first argument of its start (eventlet). `_run` counts, too, as long as
// the greenlet has no callable. Empty if none is known.
Ref name_of_function(const Greenlet& greenlet, PyObject* run, PyObject* first_argument,
                     const PartialField& partial) noexcept;

// Takes functools.partial and its attribute `func`. Without a type if the
// class is another one than CPython's.
PartialField find_partial_field(PyObject* type, PyObject* member) noexcept;

}  // namespace greenlet::core
