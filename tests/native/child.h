// Running a piece of a test in a child process: what may fault, hang or use up a limit.
#pragma once

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string>

#ifdef GREENLET_COVERAGE
extern "C" void __gcov_dump();  // _exit() does not write the counts of lines
#endif

namespace greenlet::tests {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif
#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif
inline constexpr bool kSanitizer = kAddressSanitizer || kThreadSanitizer;

// How a child ended, in words that make a failed expectation readable.
struct Ending {
  int status;

  bool operator==(const Ending&) const = default;
  friend void PrintTo(const Ending& ending, std::ostream* stream) {
    if (WIFSIGNALED(ending.status)) {
      *stream << "killed by " << strsignal(WTERMSIG(ending.status));
    } else {
      *stream << "exit status " << WEXITSTATUS(ending.status);
    }
  }
};

inline Ending exited(int code) { return Ending{code << 8}; }
inline Ending killed(int signal) { return Ending{signal}; }

// Runs `body` in a forked child and returns how that ended; body's result is the exit status.
// A child that takes longer than `seconds` is killed by SIGALRM.
template <typename Body>
Ending in_child(Body body, unsigned seconds = 60) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(seconds);
    // Sanitizers handle these signals, and exit with a status instead.
    for (const int signal : {SIGSEGV, SIGBUS, SIGABRT}) {
      std::signal(signal, SIG_DFL);
    }
    const int status = body();
#ifdef GREENLET_COVERAGE
    __gcov_dump();
#endif
    _exit(status);
  }
  int status = 0;
  waitpid(child, &status, 0);
  // Without the bit that tells of a core dump.
  return Ending{status & ~0x80};
}

}  // namespace greenlet::tests
