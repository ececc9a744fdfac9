// What regions cost: from the pool, from the reserve, from the kernel. Times are per region.
#include <benchmark/benchmark.h>

#include <vector>

#include "stack/stack.h"

namespace greenlet::stack {
namespace {

void acquire_and_release(benchmark::State& state) {
  Pool pool;
  Failure failure{};
  for ([[maybe_unused]] auto _ : state) {
    Region region = pool.acquire(failure);
    benchmark::DoNotOptimize(region);
    pool.release(region);
  }
}
BENCHMARK(acquire_and_release)->ThreadRange(1, 2);

// So many at once, each used a little, again and again; beyond the pool bound they come from the
// reserve and from the kernel.
void burst(benchmark::State& state) {
  Pool pool;
  Failure failure{};
  std::vector<Region> regions(static_cast<std::size_t>(state.range(0)));
  for ([[maybe_unused]] auto _ : state) {
    for (Region& region : regions) {
      region = pool.acquire(failure);
      region.boundary[-1] = std::byte{1};
    }
    for (const Region& region : regions) {
      pool.release(region);
    }
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(burst)->Arg(10)->Arg(200)->Arg(1000)->Arg(2000)->Arg(20000);

// Every greenlet uses this many KiB of its stack: what trimming costs where it has to be done.
void deep(benchmark::State& state) {
  Pool pool;
  Failure failure{};
  const std::ptrdiff_t bytes = state.range(0) * 1024;
  for ([[maybe_unused]] auto _ : state) {
    const Region region = pool.acquire(failure);
    for (std::ptrdiff_t at = 1; at <= bytes; at += 4096) {
      region.boundary[-at] = std::byte{1};
    }
    pool.release(region);
  }
}
BENCHMARK(deep)->Arg(1)->Arg(16)->Arg(40)->Arg(256);

}  // namespace
}  // namespace greenlet::stack
