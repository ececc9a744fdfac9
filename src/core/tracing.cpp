// The call of the trace callback.
#include "core/tracing.h"

namespace greenlet::core {

bool Tracer::call(const char* event, const Greenlet& origin,
                  const Greenlet& target) const noexcept {
  const Ref callback = Ref::share(callback_);  // the call may remove it
  const Ref result = Ref::take(
      PyObject_CallFunction(callback.get(), "s(OO)", event, origin.object(), target.object()));
  return static_cast<bool>(result);
}

}  // namespace greenlet::core
