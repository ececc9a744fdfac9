// CPython's part of the debug table (debug_block.h): where the fields of its structures are that
// lead from a thread state to the names and lines of its frames, to strings, and to the names of
// functions, classes and threads.
#include "cpython/debug_block.h"
#include "cpython/internals.h"
#include "cpython/stack_state.h"

#include <internal/pycore_dict.h>
#include <internal/pycore_moduleobject.h>

// All compilers that can build this know the offsets in classes with several bases.
#pragma GCC diagnostic ignored "-Winvalid-offsetof"

namespace greenlet::cpython {

// A friend of the classes whose private members it tells.
struct DebugLayout {
  static constexpr DebugEntry kStackState =
#if PY_VERSION_HEX >= 0x030d0000
      {"stack_state.frame", {offsetof(StackState, fields_.frame)}};
#else
      {"stack_state.cframe", {offsetof(StackState, fields_.cframe)}};
#endif
};

namespace {

// Python/specialize.c and Objects/dictobject.c use no other kinds.
static_assert(DICT_KEYS_GENERAL == 0, "keys of any other kind are strings, without their hashes");

using StringState = decltype(PyASCIIObject::state);

constexpr StringState string_state(unsigned kind, unsigned compact, unsigned ascii) {
  StringState state = {};
  state.kind = kind;
  state.compact = compact;
  state.ascii = ascii;
  return state;
}

constexpr DebugEntry kEntries[] = {
    {"python.version", {PY_VERSION_HEX}},
#ifdef Py_GIL_DISABLED
    {"python.free_threaded", {1}},
#else
    {"python.free_threaded", {0}},
#endif

    // A thread. The innermost frame of what it runs.
    {"thread_state.ident", {offsetof(PyThreadState, thread_id)}},
    {"thread_state.native_id", {offsetof(PyThreadState, native_thread_id)}},
    {"thread_state.interpreter", {offsetof(PyThreadState, interp)}},
#if PY_VERSION_HEX >= 0x030d0000
    {"thread_state.frame", {offsetof(PyThreadState, current_frame)}},
#else
    {"thread_state.cframe", {offsetof(PyThreadState, cframe)}},
    {"cframe.frame", {offsetof(_PyCFrame, current_frame)}},
#endif
#if PY_VERSION_HEX >= 0x030c0000
    {"interpreter.modules", {offsetof(PyInterpreterState, imports.modules)}},
#else
    {"interpreter.modules", {offsetof(PyInterpreterState, modules)}},
#endif

    // The same for the stack of a suspended greenlet.
    DebugLayout::kStackState,

    // A frame. Those of other owners than these two are shims without code.
    {"frame.previous", {offsetof(_PyInterpreterFrame, previous)}},
    {"frame.owner", {offsetof(_PyInterpreterFrame, owner)}},
    {"frame.owner_thread", {FRAME_OWNED_BY_THREAD}},
    {"frame.owner_generator", {FRAME_OWNED_BY_GENERATOR}},
#if PY_VERSION_HEX >= 0x030d0000
    {"frame.code", {offsetof(_PyInterpreterFrame, f_executable)}},
    {"frame.instruction", {offsetof(_PyInterpreterFrame, instr_ptr)}},
#else
    {"frame.code", {offsetof(_PyInterpreterFrame, f_code)}},
    {"frame.instruction", {offsetof(_PyInterpreterFrame, prev_instr)}},
#endif
#if PY_VERSION_HEX >= 0x030e0000
    {"frame.code_tag_bits", {static_cast<std::int64_t>(Py_TAG_BITS)}},
#else
    {"frame.code_tag_bits", {0}},
#endif

    // A code object, and the copies of its instructions that threads have.
    {"code.qualified_name", {offsetof(PyCodeObject, co_qualname)}},
    {"code.file", {offsetof(PyCodeObject, co_filename)}},
    {"code.first_line", {offsetof(PyCodeObject, co_firstlineno)}},
    {"code.lines", {offsetof(PyCodeObject, co_linetable)}},
    {"code.instructions", {offsetof(PyCodeObject, co_code_adaptive)}},
    {"code.first_traceable", {offsetof(PyCodeObject, _co_firsttraceable)}},
    {"instruction.bytes", {sizeof(_Py_CODEUNIT)}},
#ifdef Py_GIL_DISABLED
    {"frame.copy", {offsetof(_PyInterpreterFrame, tlbc_index)}},
    {"code.copies", {offsetof(PyCodeObject, co_tlbc)}},
    {"copies.count", {offsetof(_PyCodeArray, size)}},
    {"copies.first", {offsetof(_PyCodeArray, entries)}},
#endif

    // Objects and classes. A class that is not made in C has its name as a string.
    {"object.type", {offsetof(PyObject, ob_type)}},
    {"object.bytes", {sizeof(PyObject)}},
    {"type.name", {offsetof(PyTypeObject, tp_name)}},
    {"type.flags", {offsetof(PyTypeObject, tp_flags)}},
    {"type.basic_bytes", {offsetof(PyTypeObject, tp_basicsize)}},
    {"type.is_heap_type", {Py_TPFLAGS_HEAPTYPE}},
    {"type.is_string", {Py_TPFLAGS_UNICODE_SUBCLASS}},
    {"heap_type.qualified_name", {offsetof(PyHeapTypeObject, ht_qualname)}},
    {"heap_type.keys", {offsetof(PyHeapTypeObject, ht_cached_keys)}},

    // Strings, bytes, numbers, tuples.
    {"string.length", {offsetof(PyASCIIObject, length)}},
    {"string.state", {offsetof(PyASCIIObject, state)}},
    {"string.state_kind", {.string_state = string_state(7, 0, 0)}},
    {"string.state_compact", {.string_state = string_state(0, 1, 0)}},
    {"string.state_ascii", {.string_state = string_state(0, 0, 1)}},
    {"string.ascii_data", {sizeof(PyASCIIObject)}},
    {"string.data", {sizeof(PyCompactUnicodeObject)}},
    {"bytes.length", {offsetof(PyVarObject, ob_size)}},
    {"bytes.data", {offsetof(PyBytesObject, ob_sval)}},
#if PY_VERSION_HEX >= 0x030c0000
    {"int.digits", {offsetof(PyLongObject, long_value.ob_digit)}},
    {"int.size", {offsetof(PyLongObject, long_value.lv_tag)}},
    {"int.size_shift", {_PyLong_NON_SIZE_BITS}},
#else
    {"int.digits", {offsetof(PyLongObject, ob_digit)}},
    {"int.size", {offsetof(PyVarObject, ob_size)}},
    {"int.size_shift", {0}},
#endif
    {"int.digit_bits", {PyLong_SHIFT}},
    {"tuple.length", {offsetof(PyVarObject, ob_size)}},
    {"tuple.items", {offsetof(PyTupleObject, ob_item)}},

    // Callables.
    {"function.qualified_name", {offsetof(PyFunctionObject, func_qualname)}},
    {"method.function", {offsetof(PyMethodObject, im_func)}},
    {"c_function.definition", {offsetof(PyCFunctionObject, m_ml)}},
    {"c_function.self", {offsetof(PyCFunctionObject, m_self)}},
    {"definition.name", {offsetof(PyMethodDef, ml_name)}},
    {"partial.function", {sizeof(PyObject)}},  // the first field in Modules/_functoolsmodule.c

    // Dicts and the attributes of objects, to find the names of threads and greenlets.
    {"module.dict", {offsetof(PyModuleObject, md_dict)}},
    {"dict.keys", {offsetof(PyDictObject, ma_keys)}},
    {"dict.values", {offsetof(PyDictObject, ma_values)}},
    {"keys.kind", {offsetof(PyDictKeysObject, dk_kind)}},
    {"keys.log2_index_bytes", {offsetof(PyDictKeysObject, dk_log2_index_bytes)}},
    {"keys.count", {offsetof(PyDictKeysObject, dk_nentries)}},
    {"keys.indices", {offsetof(PyDictKeysObject, dk_indices)}},
    {"entry.bytes", {sizeof(PyDictKeyEntry)}},
    {"entry.key", {offsetof(PyDictKeyEntry, me_key)}},
    {"entry.value", {offsetof(PyDictKeyEntry, me_value)}},
    {"string_entry.bytes", {sizeof(PyDictUnicodeEntry)}},
    {"string_entry.key", {offsetof(PyDictUnicodeEntry, me_key)}},
    {"string_entry.value", {offsetof(PyDictUnicodeEntry, me_value)}},
    {"values.first", {offsetof(PyDictValues, values)}},
// The pointer to an object's dict. If there is none yet, its attributes are in an array.
#if PY_VERSION_HEX >= 0x030d0000
    {"instance.dict", {MANAGED_DICT_OFFSET}},
#else
    {"instance.dict", {-3 * static_cast<std::int64_t>(sizeof(PyObject*))}},
#endif
    {"type.has_managed_dict", {Py_TPFLAGS_MANAGED_DICT}},
#if PY_VERSION_HEX >= 0x030d0000
    {"type.has_inline_values", {Py_TPFLAGS_INLINE_VALUES}},  // behind the object
#elif PY_VERSION_HEX >= 0x030c0000
    {"instance.values_tag", {-1}},  // the pointer to the dict is one to the array, plus this
#else
    {"instance.values",
     {-4 * static_cast<std::int64_t>(sizeof(PyObject*))}},  // a pointer of its own
#endif

#ifndef MS_COREDLL  // what is imported from a DLL has no address before the import
    {"PyCode_Type", {.address = &PyCode_Type}},
    {"PyUnicode_Type", {.address = &PyUnicode_Type}},
    {"PyFunction_Type", {.address = &PyFunction_Type}},
    {"PyMethod_Type", {.address = &PyMethod_Type}},
    {"PyCFunction_Type", {.address = &PyCFunction_Type}},
    {"PyModule_Type", {.address = &PyModule_Type}},
    {"PyType_Type", {.address = &PyType_Type}},
#endif
};

[[gnu::used, gnu::retain, gnu::section(GREENLET_DEBUG_SECTION)]]
constinit DebugBlock<std::size(kEntries)> g_block(&g_block, kEntries);

}  // namespace
}  // namespace greenlet::cpython
