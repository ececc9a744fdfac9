// Which C function called the Python function, as far as that is certain: class statements only.
#include "cpython/c_callers.h"

#include "cpython/internals.h"

namespace greenlet::cpython {
namespace {

PyObject* function_of(_PyInterpreterFrame* frame) {
#if PY_VERSION_HEX >= 0x030e0000
  return PyStackRef_IsNull(frame->f_funcobj) ? nullptr
                                             : PyStackRef_AsPyObjectBorrow(frame->f_funcobj);
#elif PY_VERSION_HEX >= 0x030c0000
  return frame->f_funcobj;
#else
  return reinterpret_cast<PyObject*>(frame->f_func);
#endif
}

// True if `callee` is the body of a class statement in `caller`.
//
// A class body is code that is a constant of the code around it, and it runs in a namespace of its
// own. exec() can run the same code, in a namespace that other code owns. The function's name tells
// them apart: PyEval_EvalCode(), which exec() calls, gives it the plain name of the code, a class
// statement the qualified name. (For a class outside of all functions both names are the same, so
// the answer is false.)
bool is_class_body(_PyInterpreterFrame* callee, _PyInterpreterFrame* caller) {
  PyCodeObject* const code = code_of(callee);
  if (callee->f_locals == nullptr || callee->f_locals == callee->f_globals ||
      (code->co_flags & CO_OPTIMIZED) != 0) {
    return false;
  }
  PyObject* const function = function_of(callee);
  if (function == nullptr || !PyFunction_Check(function) || code->co_qualname == code->co_name ||
      reinterpret_cast<PyFunctionObject*>(function)->func_qualname != code->co_qualname) {
    return false;
  }
  PyObject* const constants = code_of(caller)->co_consts;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(constants); ++i) {
    if (PyTuple_GET_ITEM(constants, i) == reinterpret_cast<PyObject*>(code)) {
      return true;
    }
  }
  return false;
}

}  // namespace

int visit_c_caller(_PyInterpreterFrame* callee, _PyInterpreterFrame* caller, visitproc visit,
                   void* arg) noexcept {
  if (is_class_body(callee, caller)) {
    Py_VISIT(callee->f_locals);  // __build_class__() has a reference while the body runs
  }
  return 0;
}

}  // namespace greenlet::cpython
