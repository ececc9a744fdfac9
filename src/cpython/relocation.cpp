// The methods of StackState that move a suspended stack to another address. While a stack lies
// elsewhere, the collector and tools follow its chain of frames, the values of the frames, and the
// C stack references. So every pointer on these ways is rebased. All other pointers into the stack
// are left: only code of that stack follows them, and the stack is back by then.
#include "cpython/relocation.h"

#include "cpython/internals.h"
#include "cpython/stack_state.h"

#if PY_VERSION_HEX >= 0x030d0000
#include <internal/pycore_frame.h>
#endif

namespace greenlet::cpython {
namespace {

#ifdef Py_GIL_DISABLED
// Other threads follow a frame object, or a generator to its frame and the callers of that, without
// stopping anybody. They must not meet a frame that moves.
bool may_be_seen_by_others(_PyInterpreterFrame* frame) {
  return frame->owner == FRAME_OWNED_BY_GENERATOR ||
         (frame->frame_obj != nullptr &&
          Py_REFCNT(reinterpret_cast<PyObject*>(frame->frame_obj)) != 1);
}
#endif

}  // namespace

bool StackState::may_be_relocated(const std::byte* data) const noexcept {
  // Frames in further chunks of the data stack would need a walk of their own.
  return fields_.is_in_root(data) && !is_seen_by_others();
}

bool StackState::is_seen_by_others() const noexcept {
#ifdef Py_GIL_DISABLED
  for (_PyInterpreterFrame* frame = fields_.innermost(); frame != nullptr;
       frame = frame->previous) {
    if (!is_shim(frame) && may_be_seen_by_others(frame)) {
      return true;
    }
  }
#endif
  return false;
}

void StackState::relocate(const Relocation& moved) noexcept {
  operands_.relocate(moved);
  fields_.relocate(moved);
  for (_PyInterpreterFrame* frame = fields_.innermost(); frame != nullptr;
       frame = frame->previous) {
    // Links lead to the stack from frames of generators, too, which lie in the generators.
    frame->previous = moved(frame->previous);
    if (is_shim(frame)) {
      continue;  // debug builds fill the other fields with invalid values
    }
#if PY_VERSION_HEX >= 0x030e0000
    frame->stackpointer = moved(frame->stackpointer);
#endif
    if (frame->frame_obj != nullptr) {
      frame->frame_obj->f_frame = moved(frame->frame_obj->f_frame);
    }
  }
}

}  // namespace greenlet::cpython
