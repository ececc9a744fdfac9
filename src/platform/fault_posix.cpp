// Faults on Linux and macOS: sigaction() and sigaltstack(). All of this also holds in the child of
// a fork, which inherits the handlers and the stack of the thread that forks.
#include "platform/fault.h"

#if defined(__APPLE__)
#include <pthread.h>
#else
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>

#include "platform/memory.h"

#ifdef GREENLET_COVERAGE
extern "C" void __gcov_dump();
extern "C" void __gcov_reset();
#endif

namespace greenlet::platform {
namespace {

// Enough for handlers like faulthandler's, which dumps a traceback.
constexpr std::size_t kSignalStackBytes = std::size_t{64} << 10;

struct Watched {
  int signal;
  bool is_installed;
  struct sigaction previous;  // written while our handler is not installed
};

constinit std::array<Watched, 2> watched{{{SIGSEGV, false, {}}, {SIGBUS, false, {}}}};
constinit std::atomic<FaultHook> current_hook{nullptr};
constinit thread_local std::byte* signal_stack = nullptr;

bool is_function(const struct sigaction& action) noexcept {
  // sa_handler and sa_sigaction are one word.
  return action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN;
}

void set_default(int signal) noexcept {
  struct sigaction action{};
  action.sa_handler = SIG_DFL;
  sigaction(signal, &action, nullptr);
}

// Sends the calling thread the signal that it has got.
void send_again(int signal, [[maybe_unused]] siginfo_t* info) noexcept {
#if defined(__APPLE__)
  pthread_kill(pthread_self(), signal);
#else
  syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), signal, info);
#endif
}

// Does what the kernel would have done without our handler. The flags and the mask of the previous
// handler are those of ours, too (see install()).
void pass_on(const struct sigaction& previous, int signal, siginfo_t* info,
             void* context) noexcept {
  const bool was_sent = info->si_code <= 0;  // by kill() and the like: it does not repeat
  if (is_function(previous)) {
    const struct sigaction called = previous;
    if ((static_cast<unsigned>(called.sa_flags) & SA_RESETHAND) != 0) {
      set_default(signal);
    }
    if ((called.sa_flags & SA_SIGINFO) != 0) {
      called.sa_sigaction(signal, info, context);
    } else {
      called.sa_handler(signal);
    }
    return;
  }
  if (was_sent && previous.sa_handler == SIG_IGN) {
    return;
  }
  // A fault that is ignored ends the process all the same.
  set_default(signal);
  if (was_sent) {
    send_again(signal, info);
  }
  // The instruction runs again, faults again, and a core dump shows it.
}

void on_fault(int signal, siginfo_t* info, void* context) noexcept {
  const int error = errno;
  Watched& each = watched[signal == SIGBUS];
  const FaultHook hook = current_hook.load(std::memory_order_acquire);
  if (info->si_code > 0 && hook != nullptr && hook(info->si_addr)) {
    // The instruction runs again, and the kernel itself calls the previous handler.
    sigaction(signal, &each.previous, nullptr);
    each.is_installed = false;
  } else {
    pass_on(each.previous, signal, info, context);
  }
  errno = error;
#ifdef GREENLET_COVERAGE
  // The counts of lines, which a process writes at its exit: this one may end by the signal.
  __gcov_dump();
  __gcov_reset();
#endif
}

bool is_ours(const struct sigaction& action) noexcept {
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == &on_fault;
}

bool install(Watched& each) noexcept {
  struct sigaction now{};
  if (sigaction(each.signal, nullptr, &now) != 0) {
    return false;
  }
  // A handler that was put in front of ours may call ours. If ours called that handler, they would
  // call each other without end.
  if (is_ours(now) || (each.is_installed && is_function(now))) {
    return true;
  }
  each.previous = now;
  struct sigaction ours = now;
  ours.sa_flags &= ~static_cast<int>(SA_RESETHAND);
  ours.sa_flags |= SA_SIGINFO | SA_ONSTACK;
  ours.sa_sigaction = &on_fault;
  each.is_installed = sigaction(each.signal, &ours, nullptr) == 0;
  return each.is_installed;
}

}  // namespace

bool watch_faults(FaultHook hook) noexcept {
  current_hook.store(hook, std::memory_order_release);
  bool installed = true;
  for (Watched& each : watched) {
    installed = install(each) && installed;
  }
  return installed;
}

void stop_watching_faults() noexcept {
  current_hook.store(nullptr, std::memory_order_release);
  for (Watched& each : watched) {
    struct sigaction now{};
    // If a later handler is in front of ours, ours stays and passes everything on.
    if (each.is_installed && sigaction(each.signal, nullptr, &now) == 0 && is_ours(now)) {
      sigaction(each.signal, &each.previous, nullptr);
      each.is_installed = false;
    }
  }
}

void ensure_signal_stack() noexcept {
  stack_t now{};
  if (signal_stack != nullptr || sigaltstack(nullptr, &now) != 0 ||
      (now.ss_flags & SS_DISABLE) == 0) {
    return;
  }
  bool locks = false;
  std::byte* const memory = map(kSignalStackBytes, kPageSize, locks);
  if (memory == nullptr) {
    return;
  }
  stack_t ours{};
  ours.ss_sp = memory;
  ours.ss_size = kSignalStackBytes;
  if (sigaltstack(&ours, nullptr) == 0) {
    signal_stack = memory;
  } else {
    unmap({memory, memory + kSignalStackBytes});
  }
}

void release_signal_stack() noexcept {
  if (signal_stack == nullptr) {
    return;
  }
  stack_t now{};
  stack_t none{};
  none.ss_flags = SS_DISABLE;
  // If other code has set its own stack, it may set ours again later; and nothing can be changed
  // from a handler that runs on it. Then ours stays.
  if (sigaltstack(nullptr, &now) == 0 && now.ss_sp == signal_stack &&
      sigaltstack(&none, nullptr) == 0) {
    unmap({signal_stack, signal_stack + kSignalStackBytes});
  }
  signal_stack = nullptr;
}

}  // namespace greenlet::platform
