// Signals that are asked for, on Linux and macOS: sigaction().
#include "platform/signal.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>

namespace greenlet::platform {
namespace {

struct Watched {
  std::atomic<SignalHook> hook{nullptr};  // null if the signal is not watched
  std::atomic<int> descriptor{-1};
  std::atomic<bool> chain{false};
  struct sigaction previous{};  // written while our handler is not installed
};

constinit std::array<Watched, NSIG> watched{};

void on_signal(int signal, siginfo_t* info, void* context) noexcept {
  const int error = errno;
  const Watched& each = watched[static_cast<std::size_t>(signal)];
  if (const SignalHook hook = each.hook.load(std::memory_order_acquire)) {
    hook(each.descriptor.load(std::memory_order_relaxed));
  }
  const struct sigaction& previous = each.previous;
  // sa_handler and sa_sigaction are one word.
  if (each.chain.load(std::memory_order_relaxed) && previous.sa_handler != SIG_DFL &&
      previous.sa_handler != SIG_IGN) {
    errno = error;
    if ((previous.sa_flags & SA_SIGINFO) != 0) {
      previous.sa_sigaction(signal, info, context);
    } else {
      previous.sa_handler(signal);
    }
  }
  errno = error;
}

bool is_ours(const struct sigaction& action) noexcept {
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == &on_signal;
}

// True for a signal that comes again at once when its handler returns.
bool is_fault(int signal) noexcept {
  return signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL ||
         signal == SIGABRT;
}

}  // namespace

bool watch_signal(int signal, SignalHook hook, int descriptor, bool chain) noexcept {
  if (signal <= 0 || signal >= NSIG || is_fault(signal)) {
    errno = EINVAL;
    return false;
  }
  Watched& each = watched[static_cast<std::size_t>(signal)];
  each.descriptor.store(descriptor, std::memory_order_relaxed);
  each.chain.store(chain, std::memory_order_relaxed);
  each.hook.store(hook, std::memory_order_release);
  struct sigaction present{};
  if (sigaction(signal, nullptr, &present) == 0 && is_ours(present)) {
    return true;
  }
  struct sigaction action{};
  action.sa_sigaction = &on_signal;
  // On a stack of its own if the thread has one: the signal may come when a greenlet's is full.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigemptyset(&action.sa_mask);
  if (sigaction(signal, nullptr, &each.previous) == 0 && sigaction(signal, &action, nullptr) == 0) {
    return true;
  }
  each.hook.store(nullptr, std::memory_order_relaxed);
  return false;
}

bool stop_watching_signal(int signal) noexcept {
  if (signal <= 0 || signal >= NSIG) {
    return false;
  }
  Watched& each = watched[static_cast<std::size_t>(signal)];
  if (each.hook.load(std::memory_order_relaxed) == nullptr) {
    return false;
  }
  struct sigaction present{};
  if (sigaction(signal, nullptr, &present) == 0 && is_ours(present)) {  // no later one
    sigaction(signal, &each.previous, nullptr);
  }
  each.hook.store(nullptr, std::memory_order_relaxed);
  return true;
}

void write_all(int descriptor, const char* text, std::size_t length) noexcept {
  while (length > 0) {
    const ssize_t written = write(descriptor, text, length);
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      return;
    }
    text += written;
    length -= static_cast<std::size_t>(written);
  }
}

}  // namespace greenlet::platform
