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
// It runs code that is a constant of the code around it, in a namespace of its own. exec() can run
// that code, too, in a namespace that somebody else owns. But then PyEval_EvalCode() has made the
// function around it, by the code's plain name; the function of a class statement has the qualified
// one. (So of a class outside of all functions, where both names are the same, this is not known.)
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
    Py_VISIT(callee->f_locals);  // __build_class__()'s, as long as the body runs
  }
  return 0;
}

}  // namespace greenlet::cpython
