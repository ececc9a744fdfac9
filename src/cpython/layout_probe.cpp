// 3.11 and 3.12 do not tell their layout: _PyRuntime.debug_offsets came with 3.13. So this compares
// what public functions return and change with the fields at the offsets that this build uses.
#include "cpython/layout_probe.h"

#if PY_VERSION_HEX < 0x030d0000

#include <cstddef>
#include <cstdint>

#include "cpython/internals.h"
#include "platform/readable.h"

namespace greenlet::cpython {
namespace {

template <typename T>
bool is_at(const T* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % alignof(T) == 0 && pointer != nullptr &&
         platform::is_readable(pointer);
}

// Whether a field of PyThreadState is in its place; kError with an exception set.
enum class Answer : unsigned char { kNo, kYes, kError };

Answer answer(bool yes) { return yes ? Answer::kYes : Answer::kNo; }

Answer has_interpreter(PyThreadState* tstate) {
  return answer(tstate->interp == PyThreadState_GetInterpreter(tstate) &&
                tstate->id == PyThreadState_GetID(tstate));
}

Answer has_recursion(PyThreadState* tstate) {
#if PY_VERSION_HEX >= 0x030c0000
  const int& limit = tstate->py_recursion_limit;
  const int& remaining = tstate->c_recursion_remaining;
#else
  const int& limit = tstate->recursion_limit;
  const int& remaining = tstate->recursion_remaining;
#endif
  const int before = remaining;
  if (Py_EnterRecursiveCall(" while greenlet is imported") != 0) {
    return Answer::kError;
  }
  const int inside = remaining;
  Py_LeaveRecursiveCall();
  return answer(inside == before - 1 && limit == Py_GetRecursionLimit());
}

Answer has_handled_exception(PyThreadState* tstate) {
  PyObject* const probe = PyObject_CallNoArgs(PyExc_Exception);
  if (probe == nullptr) {
    return Answer::kError;
  }
  PyObject* const handled = PyErr_GetHandledException();
  PyErr_SetHandledException(probe);
  const bool found = is_at(tstate->exc_info) && tstate->exc_info->exc_value == probe;
  PyErr_SetHandledException(handled);
  Py_XDECREF(handled);
  Py_DECREF(probe);
  return answer(found);
}

Answer has_dict(PyThreadState* tstate) { return answer(PyThreadState_GetDict() == tstate->dict); }

#if PY_VERSION_HEX >= 0x030c0000
Answer has_context(PyThreadState* tstate) {
  PyObject* const context = PyContext_New();
  const std::uint64_t version = tstate->context_ver;
  if (context == nullptr || PyContext_Enter(context) < 0) {
    Py_XDECREF(context);
    return Answer::kError;
  }
  const bool found = tstate->context == context && tstate->context_ver == version + 1;
  const int left = PyContext_Exit(context);
  Py_DECREF(context);
  return left < 0 ? Answer::kError : answer(found);
}
#endif

Answer has_data_stack(PyThreadState* tstate) {
  const _PyStackChunk* const chunk = tstate->datastack_chunk;
  const auto* const begin = reinterpret_cast<const char*>(chunk);
  const auto* const top = reinterpret_cast<const char*>(tstate->datastack_top);
  const auto* const limit = reinterpret_cast<const char*>(tstate->datastack_limit);
  if (begin == nullptr) {
    return answer(top == nullptr && limit == nullptr);  // no Python code has run yet
  }
  return answer(is_at(chunk) && is_at(&chunk->size) && begin + chunk->size == limit &&
                begin < top && top <= limit);
}

// The frame that belongs to a frame object: `from`, or a frame further out; null if there is none.
_PyInterpreterFrame* find(_PyInterpreterFrame* from, PyFrameObject* object) {
  constexpr std::size_t kProbed = 8;  // bytes that is_readable() looks at
  constexpr std::size_t kLast = sizeof(_PyInterpreterFrame) - kProbed;
  constexpr int kMostFrames = 1000;  // a wrong layout may show a circle
  for (int left = kMostFrames; left > 0 && is_at(from); --left) {
    if (!platform::is_readable(reinterpret_cast<const char*>(from) + kLast)) {
      break;
    }
    if (from->frame_obj == object) {
      return from;
    }
    from = from->previous;
  }
  return nullptr;
}

bool fits(PyThreadState* tstate, PyFrameObject* object) {
  _PyInterpreterFrame* const frame = is_at(tstate->cframe) && is_at(&tstate->cframe->current_frame)
                                         ? find(tstate->cframe->current_frame, object)
                                         : nullptr;
  if (frame == nullptr) {
    return false;
  }
  PyCodeObject* const code = PyFrame_GetCode(object);
  PyObject* const globals = PyFrame_GetGlobals(object);
  PyFrameObject* const caller = PyFrame_GetBack(object);
  const bool fitting =
      frame->f_code == code && frame->f_globals == globals &&
      (frame->owner == FRAME_OWNED_BY_THREAD || frame->owner == FRAME_OWNED_BY_GENERATOR) &&
      _PyInterpreterFrame_LASTI(frame) * static_cast<int>(sizeof(_Py_CODEUNIT)) ==
          PyFrame_GetLasti(object) &&
      (caller == nullptr || find(frame->previous, caller) != nullptr) &&
      // The innermost frame lies at the end of the data stack.
      (tstate->cframe->current_frame != frame || frame->owner != FRAME_OWNED_BY_THREAD ||
       reinterpret_cast<PyObject**>(frame) + FRAME_SPECIALS_SIZE + code->co_nlocalsplus +
               code->co_stacksize ==
           tstate->datastack_top);
  Py_DECREF(code);
  Py_DECREF(globals);
  Py_XDECREF(caller);
  return fitting;
}

Answer has_frames(PyThreadState* tstate) {
  PyFrameObject* const innermost = PyThreadState_GetFrame(tstate);
  if (innermost == nullptr) {
    return Answer::kYes;  // C code imports us
  }
  const bool fitting = fits(tstate, innermost);
  Py_DECREF(innermost);
  return answer(fitting);
}

}  // namespace

int find_misplaced_field(const char*& what) noexcept {
  struct Probe {
    const char* what;
    Answer (*is_in_place)(PyThreadState*);
  };
  constexpr Probe kProbes[] = {
      {"PyThreadState.interp or PyThreadState.id", &has_interpreter},
      {"PyThreadState.recursion_limit", &has_recursion},
      {"PyThreadState.exc_info", &has_handled_exception},
      {"PyThreadState.dict", &has_dict},
#if PY_VERSION_HEX >= 0x030c0000
      // In 3.11 it lies between two fields that are checked, and PyContext_New() of 3.11 crashes if
      // there is no memory.
      {"PyThreadState.context", &has_context},
#endif
      {"PyThreadState.datastack_chunk", &has_data_stack},
      {"PyThreadState.cframe, or a field of an interpreter frame,", &has_frames},
  };
  PyThreadState* const tstate = PyThreadState_Get();
  for (const Probe& probe : kProbes) {
    switch (probe.is_in_place(tstate)) {
      case Answer::kYes:
        break;
      case Answer::kNo:
        what = probe.what;
        return 0;
      case Answer::kError:
        return -1;
    }
  }
  what = nullptr;
  return 0;
}

}  // namespace greenlet::cpython

#endif
