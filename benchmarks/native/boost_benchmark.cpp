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

void boost_create_run_finish(benchmark::State& state) {
  boost::context::pooled_fixedsize_stack stacks;
  for ([[maybe_unused]] auto _ : state) {
    fiber once(std::allocator_arg, stacks, [](fiber&& outside) { return std::move(outside); });
    once = std::move(once).resume();
  }
}
BENCHMARK(boost_create_run_finish);

}  // namespace
