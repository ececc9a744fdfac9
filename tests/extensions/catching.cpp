// For test_windows.py: exceptions of Microsoft's C++ runtime (vcruntime140.dll) on the stacks of
// greenlets, and recursion in C. Compiled for
// its ABI, without its headers and without Python's, which need them. ctypes.PyDLL() loads it.
struct PyObject;
extern "C" {
PyObject* PyObject_CallNoArgs(PyObject*);
PyObject* PyLong_FromLong(long);
PyObject* PyList_New(long long);
int PyList_Append(PyObject*, PyObject*);
void Py_DecRef(PyObject*);

// The table of functions of std::type_info, which a static library of Microsoft's has.
extern const void* const type_info_table asm("??_7type_info@@6B@");
const void* const type_info_table = nullptr;
}

namespace {

int living = 0;  // errors that the runtime has not destroyed

// Each handler adds a digit to the error that it has caught.
struct Error {
  explicit Error(long digits) : digits(digits) { ++living; }
  Error(const Error& other) : digits(other.digits) { ++living; }
  ~Error() { --living; }
  long digits;
};

struct PythonError {};

void call(PyObject* pause) {
  PyObject* const result = PyObject_CallNoArgs(pause);
  if (result == nullptr) {
    throw PythonError();
  }
  Py_DecRef(result);
}

// The error that the runtime considers handled.
long handled() {
  try {
    throw;
  } catch (const Error& error) {
    return error.digits;
  }
}

bool append(PyObject* seen, long digits) {
  PyObject* const item = PyLong_FromLong(digits);
  const bool failed = item == nullptr || PyList_Append(seen, item) < 0;
  if (item != nullptr) {
    Py_DecRef(item);
  }
  return !failed;
}

// Throws from `depth` calls down and pauses in each handler on the way up.
void descend(PyObject* pause, long digits, long depth, PyObject* seen) {
  call(pause);
  try {
    if (depth == 0) {
      throw Error(digits);
    }
    descend(pause, digits, depth - 1, seen);
  } catch (const Error& error) {
    call(pause);
    if (!append(seen, handled())) {
      throw PythonError();
    }
    throw Error(error.digits * 10 + depth);
  }
}

}  // namespace

// The digits that each handler saw. `pause` is called in each.
extern "C" __declspec(dllexport) PyObject* handle(PyObject* pause, long digits, long depth) {
  PyObject* const seen = PyList_New(0);
  if (seen == nullptr) {
    return nullptr;
  }
  bool failed = false;
  try {
    descend(pause, digits, depth, seen);
  } catch (const PythonError&) {
    failed = true;
  } catch (const Error& error) {
    failed = !append(seen, error.digits);
  }
  if (failed) {
    Py_DecRef(seen);
    return nullptr;
  }
  return seen;
}

extern "C" __declspec(dllexport) int count_living() { return living; }

// Takes some 1,000 bytes of stack for each call.
extern "C" __declspec(dllexport, noinline) int recurse(int calls) {
  volatile char here[1000];
  here[0] = 1;
  here[999] = static_cast<char>(calls);
  return (calls == 0 ? 0 : recurse(calls - 1)) + here[0];
}
