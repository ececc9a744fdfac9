// The stack pointer, as an engine sees it that knows the bounds of the thread's stack; and thread
// states that take turns in one OS thread.
#include <Python.h>
#include <greenlet/greenlet.h>
#ifdef _WIN32
#include <windows.h>
#else
#include <pthread.h>
#endif

#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace {

std::uintptr_t here() { return reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)); }

#ifdef _WIN32
// Of the thread's own stack. Windows tells the bounds of the stack that runs.
thread_local ULONG_PTR low;
thread_local ULONG_PTR high;

// on_own_stack(): whether this runs on the stack on which the thread has begun, or has loaded this.
PyObject* on_own_stack(PyObject*, PyObject*) {
  return PyBool_FromLong(low <= here() && here() < high);
}
#else
// on_own_stack(): whether this runs within the bounds that the C library has for the thread.
PyObject* on_own_stack(PyObject*, PyObject*) {
  pthread_attr_t attributes;
  void* low = nullptr;
  std::size_t bytes = 0;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) {
    return PyErr_Format(PyExc_OSError, "pthread_getattr_np");
  }
  pthread_attr_getstack(&attributes, &low, &bytes);
  pthread_attr_destroy(&attributes);
  return PyBool_FromLong(here() - reinterpret_cast<std::uintptr_t>(low) < bytes);
}
#endif

// position(): the stack pointer.
PyObject* position(PyObject*, PyObject*) {
  return PyLong_FromUnsignedLongLong(static_cast<unsigned long long>(here()));
}

// guarded(function): calls it below a frame with a pattern. True if the pattern stays intact.
PyObject* guarded(PyObject*, PyObject* function) {
  volatile unsigned char pattern[2048];
  for (std::size_t i = 0; i < sizeof pattern; ++i) {
    pattern[i] = static_cast<unsigned char>(i * 7);
  }
  PyObject* const result = PyObject_CallObject(function, nullptr);
  if (result == nullptr) {
    return nullptr;
  }
  Py_DECREF(result);
  for (std::size_t i = 0; i < sizeof pattern; ++i) {
    if (pattern[i] != static_cast<unsigned char>(i * 7)) {
      Py_RETURN_FALSE;
    }
  }
  Py_RETURN_TRUE;
}

// fill(bytes): overwrites so many bytes below the caller's frame.
void fill_deeper(long bytes) {
  volatile unsigned char noise[1024];
  for (std::size_t i = 0; i < sizeof noise; ++i) {
    noise[i] = 0xff;
  }
  if (bytes > 0) {
    fill_deeper(bytes - static_cast<long>(sizeof noise));
  }
  noise[0] = 0;  // no tail call
}

PyObject* fill(PyObject*, PyObject* bytes) {
  const long count = PyLong_AsLong(bytes);
  if (count == -1 && PyErr_Occurred() != nullptr) {
    return nullptr;
  }
  fill_deeper(count);
  Py_RETURN_NONE;
}

// throw_and_catch(depth): throws a C++ exception from so many calls below.
void throw_from(long depth) {
  if (depth == 0) {
    throw std::runtime_error("thrown");
  }
  throw_from(depth - 1);
  asm volatile("" : : : "memory");
}

PyObject* throw_and_catch(PyObject*, PyObject* depth) {
  const long count = PyLong_AsLong(depth);
  if (count == -1 && PyErr_Occurred() != nullptr) {
    return nullptr;
  }
  try {
    throw_from(count);
  } catch (const std::exception& error) {
    return PyUnicode_FromString(error.what());
  }
  Py_RETURN_NONE;
}

// while_handling(function): calls it in a catch block; returns the result and what was handled.
PyObject* while_handling(PyObject*, PyObject* function) {
  try {
    throw_from(3);
  } catch (...) {
    PyObject* const result = PyObject_CallObject(function, nullptr);
    if (result == nullptr) {
      return nullptr;
    }
    try {
      throw;
    } catch (const std::exception& error) {
      return Py_BuildValue("(Ns)", result, error.what());
    }
  }
  Py_RETURN_NONE;
}

// switch_by_c_api(g), throw_by_c_api(g)
PyObject* switch_by_c_api(PyObject*, PyObject* target) {
  return PyGreenlet_Switch(reinterpret_cast<PyGreenlet*>(target), nullptr, nullptr);
}

PyObject* throw_by_c_api(PyObject*, PyObject* target) {
  return PyGreenlet_Throw(reinterpret_cast<PyGreenlet*>(target), PyExc_KeyError, nullptr, nullptr);
}

// in_another_thread_state(function): calls it with a fresh thread state of this interpreter and OS
// thread, on this stack.
PyObject* in_another_thread_state(PyObject*, PyObject* function) {
  PyThreadState* const mine = PyThreadState_Get();
  PyThreadState* const other = PyThreadState_New(PyInterpreterState_Get());
  PyThreadState_Swap(other);
  PyObject* const result = PyObject_CallObject(function, nullptr);
  const bool failed = result == nullptr;
  if (failed) {
    PyErr_Print();
  }
  Py_XDECREF(result);
  PyThreadState_Clear(other);
  PyThreadState_Swap(mine);
  PyThreadState_Delete(other);
  return failed ? PyErr_Format(PyExc_RuntimeError, "it failed in the other thread state")
                : Py_NewRef(Py_None);
}

PyMethodDef functions[] = {{"on_own_stack", &on_own_stack, METH_NOARGS, nullptr},
                           {"position", &position, METH_NOARGS, nullptr},
                           {"guarded", &guarded, METH_O, nullptr},
                           {"fill", &fill, METH_O, nullptr},
                           {"throw_and_catch", &throw_and_catch, METH_O, nullptr},
                           {"while_handling", &while_handling, METH_O, nullptr},
                           {"switch_by_c_api", &switch_by_c_api, METH_O, nullptr},
                           {"throw_by_c_api", &throw_by_c_api, METH_O, nullptr},
                           {"in_another_thread_state", &in_another_thread_state, METH_O, nullptr},
                           {nullptr, nullptr, 0, nullptr}};

int execute(PyObject*) {
  PyGreenlet_Import();
  return _PyGreenlet_API == nullptr ? -1 : 0;
}

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void*>(&execute)},
#ifdef Py_mod_gil
                            {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
                            {0, nullptr}};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "positions", nullptr, 0, functions, slots, nullptr, nullptr, nullptr};

}  // namespace

#ifdef _WIN32
extern "C" BOOL WINAPI DllMain(HINSTANCE, DWORD reason, LPVOID) {
  if (reason == DLL_PROCESS_ATTACH || reason == DLL_THREAD_ATTACH) {
    GetCurrentThreadStackLimits(&low, &high);
  }
  return TRUE;
}
#endif

PyMODINIT_FUNC PyInit_positions() { return PyModuleDef_Init(&definition); }
