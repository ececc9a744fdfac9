# Halves what a mutant costs: most of the time of the compiler goes into these headers.
cmake_language(DEFER CALL target_precompile_headers _greenlet PRIVATE
  <Python.h> <algorithm> <array> <atomic> <chrono> <mutex> <optional> <thread> <utility>)
