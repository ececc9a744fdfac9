#include "cpython/c_callers.h"

#include <cstddef>
#include <cstring>

#include "cpython/internals.h"

#if PY_VERSION_HEX >= 0x030e0000
#include <opcode.h>
#endif

namespace greenlet::cpython {
namespace {

#if PY_VERSION_HEX >= 0x030e0000

PyObject* borrow(_PyStackRef ref) {
  return PyStackRef_IsNullOrInt(ref) ? nullptr : PyStackRef_AsPyObjectBorrow(ref);
}

// The call that a frame waits in, while that lasts. All of it lies on the frame's value stack.
struct Call {
  PyObject* callable = nullptr;  // null if it is no call, or none whose parts are known
  PyObject* self = nullptr;      // of a method; null if there is none
  const _PyStackRef* arguments = nullptr;
  int positional = 0;

  PyObject* argument(int index) const {
    return index < positional ? borrow(arguments[index]) : nullptr;
  }
};

Call call_under_way(_PyInterpreterFrame* frame) {
  const _Py_CODEUNIT instruction = *frame->instr_ptr;
  const int count = instruction.op.arg;
  const _PyStackRef* end = frame->stackpointer;
  if (end <= _PyFrame_Stackbase(frame)) {
    return {};  // null, or an instruction that takes no operands
  }
  int keywords = 0;
  switch (instruction.op.code) {
    case CALL:
    case INSTRUMENTED_CALL:
    case CALL_BUILTIN_CLASS:
    case CALL_BUILTIN_FAST:
    case CALL_BUILTIN_FAST_WITH_KEYWORDS:
    case CALL_BUILTIN_O:
    case CALL_METHOD_DESCRIPTOR_FAST_WITH_KEYWORDS:
    case CALL_NON_PY_GENERAL:
    case CALL_TUPLE_1:
      break;
    case CALL_KW:
    case INSTRUMENTED_CALL_KW:
    case CALL_KW_NON_PY:
      if (PyObject* const names = borrow(*--end); names != nullptr && PyTuple_CheckExact(names)) {
        keywords = static_cast<int>(PyTuple_GET_SIZE(names));
        break;
      }
      return {};
    default:
      return {};
  }
  const _PyStackRef* const arguments = end - count;
  if (arguments - 2 < _PyFrame_Stackbase(frame)) {
    return {};  // it takes its operands off the stack before it calls
  }
  return {borrow(arguments[-2]), borrow(arguments[-1]), arguments, count - keywords};
}

bool is_named(const PyMethodDef* method, const char* name) {
  return std::strcmp(method->ml_name, name) == 0;
}

// A function of the module builtins.
bool is_builtin(PyObject* callable, const char* name) {
  if (!PyCFunction_CheckExact(callable)) {
    return false;
  }
  auto* const function = reinterpret_cast<PyCFunctionObject*>(callable);
  return function->m_module != nullptr && PyUnicode_Check(function->m_module) &&
         PyUnicode_EqualToUTF8(function->m_module, "builtins") != 0 &&
         is_named(function->m_ml, name);
}

// What iterates over its one argument, and keeps the iterator.
bool consumes(const Call& call) {
  PyObject* const callable = call.callable;
  if (call.self != nullptr) {
    return false;
  }
  for (const PyTypeObject* type : {&PyList_Type, &PyTuple_Type, &PySet_Type, &PyFrozenSet_Type}) {
    if (callable == reinterpret_cast<const PyObject*>(type)) {
      return true;
    }
  }
  for (const char* name : {"all", "any", "max", "min", "sorted", "sum"}) {
    if (is_builtin(callable, name)) {
      return true;
    }
  }
  return false;
}

// The function by which pattern.sub(function, text) replaces; null if it is not that.
PyObject* replacing_function(const Call& call) {
  if (call.self == nullptr || !Py_IS_TYPE(call.callable, &PyMethodDescr_Type) ||
      std::strcmp(Py_TYPE(call.self)->tp_name, "re.Pattern") != 0) {
    return nullptr;
  }
  const PyMethodDef* const method = reinterpret_cast<PyMethodDescrObject*>(call.callable)->d_method;
  return is_named(method, "sub") || is_named(method, "subn") ? call.argument(0) : nullptr;
}

#endif

// True if a frame runs code in a namespace: a module, a class body, what exec() was given.
bool has_namespace(_PyInterpreterFrame* frame) {
  return frame->f_locals != nullptr && (code_of(frame)->co_flags & CO_OPTIMIZED) == 0;
}

// True if `callee`, which has a namespace, is the body of a class statement of `caller`: nothing
// else runs such code, a constant of the code around it, in a namespace of its own.
bool is_class_body(_PyInterpreterFrame* callee, _PyInterpreterFrame* caller) {
  if (callee->f_locals == callee->f_globals) {
    return false;
  }
  auto* const code = reinterpret_cast<PyObject*>(code_of(callee));
  PyObject* const constants = code_of(caller)->co_consts;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(constants); ++i) {
    if (PyTuple_GET_ITEM(constants, i) == code) {
      return true;
    }
  }
  return false;
}

#if PY_VERSION_HEX >= 0x030e0000

// The caller's value stack says which C function it has called.
int visit_known_function(_PyInterpreterFrame* callee, _PyInterpreterFrame* caller, visitproc visit,
                         void* arg) {
  const Call call = call_under_way(caller);
  if (call.callable == nullptr) {
    return 0;
  }
  if (PyObject* const function = replacing_function(call)) {
    Py_VISIT(function);
  } else if (callee->owner == FRAME_OWNED_BY_GENERATOR) {
    auto* const generator = reinterpret_cast<PyObject*>(_PyGen_GetGeneratorFromFrame(callee));
    // Only an exact one is surely its own iterator.
    if (PyGen_CheckExact(generator) && call.argument(0) == generator && consumes(call)) {
      Py_VISIT(generator);
    }
  } else if (has_namespace(callee) &&
             (is_builtin(call.callable, "exec") || is_builtin(call.callable, "eval"))) {
    // The namespaces, and PyEval_EvalCode()'s function around the code.
    Py_VISIT(callee->f_locals);
    Py_VISIT(callee->f_globals);
    Py_VISIT(borrow(callee->f_funcobj));
  }
  return 0;
}

#endif

}  // namespace

int visit_c_caller(_PyInterpreterFrame* callee, _PyInterpreterFrame* caller, visitproc visit,
                   void* arg) noexcept {
  if (has_namespace(callee) && is_class_body(callee, caller)) {
    Py_VISIT(callee->f_locals);  // __build_class__'s
    return 0;
  }
#if PY_VERSION_HEX >= 0x030e0000
  return visit_known_function(callee, caller, visit, arg);
#else
  return 0;
#endif
}

}  // namespace greenlet::cpython
