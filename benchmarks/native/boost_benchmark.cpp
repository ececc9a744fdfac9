// The same round trip and the same short life with Boost.Context's fibers.
#include <benchmark/benchmark.h>

#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>
#include <memory>
#include <utility>

namespace {

using boost::context::fiber;

void boost_round_trip(benchmark::State& state) {
  bool stop = false;
  fiber echo([&stop](fiber&& outside) {
    while (!stop) {
      outside = std::move(outside).resume();
    }
    return std::move(outside);
  });
  for ([[maybe_unused]] auto _ : state) {
    echo = std::move(echo).resume();
  }
  stop = true;
  echo = std::move(echo).resume();
}
BENCHMARK(boost_round_trip);

[[gnu::noinline]] void resume_from(int depth, fiber& other) {
  if (depth == 0) {
    other = std::move(other).resume();
  } else {
    resume_from(depth - 1, other);
  }
  asm volatile("" : : : "memory");  // no tail call
}

[[gnu::noinline]] void resume_often(int depth, fiber& other, benchmark::IterationCount times,
                                    const bool& stop) {
  for (benchmark::IterationCount i = 0; i < times && !stop; ++i) {
    resume_from(depth, other);
  }
}

void boost_symmetric_round_trip(benchmark::State& state) {
  constexpr benchmark::IterationCount kBatch = 1000;
  const int depth = static_cast<int>(state.range(0));
  bool stop = false;
  fiber inside([&](fiber&& outside) {
    fiber other = std::move(outside);
    while (!stop) {
      resume_often(depth, other, kBatch, stop);
    }
    return other;
  });
  while (state.KeepRunningBatch(kBatch)) {
    resume_often(depth, inside, kBatch, stop);
  }
  stop = true;
  inside = std::move(inside).resume();
}
BENCHMARK(boost_symmetric_round_trip)->Arg(0)->Arg(4)->Arg(8);

void boost_create_run_finish(benchmark::State& state) {
  boost::context::pooled_fixedsize_stack stacks;
  for ([[maybe_unused]] auto _ : state) {
    fiber once(std::allocator_arg, stacks, [](fiber&& outside) { return std::move(outside); });
    once = std::move(once).resume();
  }
}
BENCHMARK(boost_create_run_finish);

}  // namespace
