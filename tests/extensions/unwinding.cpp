// C++ programs: objects and exceptions on the stacks of greenlets, and a class derived from
// PyGreenlet.
#include <Python.h>
#include <greenlet/greenlet.h>

#include <exception>
#include <functional>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

int living = 0;  // objects of Counted; the tests use this module in one thread

struct Counted {
  Counted() { ++living; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { --living; }
};

// The C++ exception that a program throws for a Python exception.
struct PythonError : std::exception {};

// Switches from the running greenlet to its parent. Holds no reference to the running greenlet
// while it waits: such a reference would keep the greenlet alive for ever.
void pause() {
  PyGreenlet* const self = PyGreenlet_GetCurrent();
  PyGreenlet* const parent = self != nullptr ? PyGreenlet_GetParent(self) : nullptr;
  Py_XDECREF(reinterpret_cast<PyObject*>(self));
  PyObject* const got = parent != nullptr ? PyGreenlet_Switch(parent, nullptr, nullptr) : nullptr;
  Py_XDECREF(reinterpret_cast<PyObject*>(parent));
  Py_XDECREF(got);
  if (got == nullptr) {
    throw PythonError();
  }
}

// The message of the exception that libstdc++ considers handled.
std::string handled() {
  try {
    throw;
  } catch (const std::exception& error) {
    return error.what();
  }
}

// Throws from `depth` calls down and pauses in each handler on the way up.
void descend(const std::string& text, long depth, std::vector<std::string>& seen) {
  const Counted here;
  pause();
  try {
    if (depth == 0) {
      throw std::runtime_error(text);
    }
    descend(text, depth - 1, seen);
  } catch (const std::runtime_error& error) {
    pause();
    seen.push_back(handled());
    throw std::runtime_error(error.what() + ("/" + std::to_string(depth)));
  }
}

// handle(text, depth): every message that its handlers saw. A Python exception that throw() raises
// here passes through the same frames.
PyObject* handle(PyObject*, PyObject* args) {
  const char* text = nullptr;
  long depth = 0;
  if (!PyArg_ParseTuple(args, "sl", &text, &depth)) {
    return nullptr;
  }
  std::vector<std::string> seen;
  try {
    descend(text, depth, seen);
  } catch (const PythonError&) {
    return nullptr;
  } catch (const std::exception& error) {
    seen.push_back(error.what());
  }
  PyObject* const list = PyList_New(0);
  for (const std::string& one : seen) {
    PyObject* const item = PyUnicode_FromString(one.c_str());
    if (list == nullptr || item == nullptr || PyList_Append(list, item) < 0) {
      Py_XDECREF(item);
      Py_XDECREF(list);
      return nullptr;
    }
    Py_DECREF(item);
  }
  return list;
}

PyObject* count_living(PyObject*, PyObject*) { return PyLong_FromLong(living); }

// A class over greenlet whose instances have a member with a destructor.
struct Task : PyGreenlet {
  std::string name;
  Counted counted;
};

PyObject* task_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  PyObject* const self = PyGreenlet_Type.tp_new(type, args, kwargs);
  if (self != nullptr) {
    Task* const task = static_cast<Task*>(reinterpret_cast<PyGreenlet*>(self));
    new (&task->name) std::string("a name too long to be kept inside the string object itself");
    new (&task->counted) Counted;
  }
  return self;
}

void task_dealloc(PyObject* self) {
  if (PyObject_CallFinalizerFromDealloc(self) < 0) {
    return;
  }
  Task* const task = static_cast<Task*>(reinterpret_cast<PyGreenlet*>(self));
  task->counted.~Counted();
  task->name.~basic_string();
  PyTypeObject* const type = Py_TYPE(self);
  PyGreenlet_Type.tp_dealloc(self);
  Py_DECREF(type);
}

int task_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  return PyGreenlet_Type.tp_traverse(self, visit, arg);
}

int task_clear(PyObject* self) { return PyGreenlet_Type.tp_clear(self); }

PyObject* task_name(PyObject* self, void*) {
  const Task* const task = static_cast<Task*>(reinterpret_cast<PyGreenlet*>(self));
  return PyUnicode_FromString(task->name.c_str());
}

PyGetSetDef task_attributes[] = {
    {"name", task_name, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot task_slots[] = {
    {Py_tp_new, reinterpret_cast<void*>(&task_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(&task_dealloc)},
    {Py_tp_traverse, reinterpret_cast<void*>(&task_traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(&task_clear)},
    {Py_tp_getset, task_attributes},
    {0, nullptr},
};

PyType_Spec task_spec = {"unwinding.Task", sizeof(Task), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, task_slots};

// A class that visits its type, and inherits tp_dealloc.
PyType_Slot visiting_slots[] = {
    {Py_tp_traverse, reinterpret_cast<void*>(&task_traverse)},
    {0, nullptr},
};

PyType_Spec visiting_spec = {"unwinding.Visiting", sizeof(PyGreenlet), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                             visiting_slots};

// A class whose finalizer does not call greenlet's, and saves the greenlet if there is a list.
PyObject* saved = nullptr;

void own_finalize(PyObject* self) {
  if (saved != nullptr && PyList_Append(saved, self) < 0) {
    PyErr_WriteUnraisable(self);
  }
}

PyObject* save_finalized(PyObject*, PyObject* list) {
  Py_XSETREF(saved, list != Py_None ? Py_NewRef(list) : nullptr);
  Py_RETURN_NONE;
}

PyType_Slot finalizing_slots[] = {
    {Py_tp_traverse, reinterpret_cast<void*>(&task_traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(&task_clear)},
    {Py_tp_finalize, reinterpret_cast<void*>(&own_finalize)},
    {0, nullptr},
};

PyType_Spec finalizing_spec = {"unwinding.Finalizing", sizeof(PyGreenlet), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                               finalizing_slots};

// A class that shows `held` to the collector, and nothing that greenlet has. Its finalizer does not
// call greenlet's.
struct Blind : PyGreenlet {
  PyObject* held;
};

PyObject*& held_of(PyObject* self) {
  return static_cast<Blind*>(reinterpret_cast<PyGreenlet*>(self))->held;
}

int blind_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(held_of(self));
  return 0;
}

int blind_clear(PyObject* self) {
  const int result = PyGreenlet_Type.tp_clear(self);
  Py_CLEAR(held_of(self));
  return result;
}

PyObject* hold_itself(PyObject* self, PyObject*) {
  held_of(self) = Py_NewRef(self);
  Py_RETURN_NONE;
}

PyMethodDef blind_methods[] = {
    {"hold_itself", hold_itself, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot blind_slots[] = {
    {Py_tp_traverse, reinterpret_cast<void*>(&blind_traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(&blind_clear)},
    {Py_tp_finalize, reinterpret_cast<void*>(&own_finalize)},
    {Py_tp_methods, blind_methods},
    {0, nullptr},
};

PyType_Spec blind_spec = {"unwinding.Blind", sizeof(Blind), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                          blind_slots};

int add_type(PyObject* module, const char* name, PyType_Spec* spec) {
  PyObject* const bases = PyTuple_Pack(1, &PyGreenlet_Type);
  PyObject* const type = bases != nullptr ? PyType_FromSpecWithBases(spec, bases) : nullptr;
  Py_XDECREF(bases);
  return type != nullptr ? PyModule_AddObject(module, name, type) : -1;
}

int execute(PyObject* module) {
  PyGreenlet_Import();
  if (_PyGreenlet_API == nullptr) {
    return -1;
  }
  if (add_type(module, "Task", &task_spec) < 0 ||
      add_type(module, "Visiting", &visiting_spec) < 0 ||
      add_type(module, "Finalizing", &finalizing_spec) < 0 ||
      add_type(module, "Blind", &blind_spec) < 0) {
    return -1;
  }
  return 0;
}

// Macro arguments with commas, and entries as values.
template <typename First, typename Second>
PyObject* pack(PyObject* value) {
  return PyTuple_Pack(sizeof(First) == sizeof(Second) ? 2 : 1, value, value);
}

struct Entries {
  PyGreenlet* (*current)();
  std::function<PyObject*(PyGreenlet*, PyObject*)> send;
};

PyObject* call_by_value(PyObject*, PyObject* target) {
  const auto sender = PyGreenlet_Switch;
  const Entries entries = {PyGreenlet_GetCurrent, [sender](PyGreenlet* to, PyObject* args) {
                             return sender(to, args, nullptr);
                           }};
  PyGreenlet* const current = entries.current();
  PyObject* const args = PyTuple_Pack(1, reinterpret_cast<PyObject*>(current));
  auto* const greenlet = reinterpret_cast<PyGreenlet*>(target);
  PyObject* const first = entries.send(greenlet, args);
  Py_DECREF(args);
  Py_DECREF(reinterpret_cast<PyObject*>(current));
  Py_XDECREF(first);
  return first == nullptr ? nullptr
                          : PyGreenlet_Switch(greenlet, pack<int, char>(Py_None), nullptr);
}

PyMethodDef methods[] = {
    {"call_by_value", call_by_value, METH_O, nullptr},
    {"handle", handle, METH_VARARGS, nullptr},
    {"count_living", count_living, METH_NOARGS, nullptr},
    {"save_finalized", save_finalized, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef_Slot slots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(&execute)},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr},
};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "unwinding", nullptr, 0, methods, slots, nullptr, nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit_unwinding() { return PyModuleDef_Init(&definition); }
