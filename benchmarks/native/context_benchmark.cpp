// What a switch costs without Python. One iteration is a round trip: two switches.
#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "context/context.h"
#include "stack/stack.h"

namespace greenlet {
namespace {

using context::Context;
using context::ExceptionGlobals;

// A context that answers every message with the same one.
struct Echo {
  stack::Pool& pool;
  stack::Region region;
  Context inside;
  Context outside;
  ExceptionGlobals* live = context::thread_exception_globals();

  explicit Echo(stack::Pool& from) : pool(from) {
    stack::Failure failure{};
    region = pool.acquire(failure);
    if (!region) {
      std::abort();
    }
    inside.prepare(region.low, region.boundary, [](void* message) {
      auto* self = static_cast<Echo*>(message);
      for (;;) {
        message = self->inside.switch_to(self->outside, self->live, message);
      }
    });
    outside.switch_to(inside, live, this);
  }
  Echo(const Echo&) = delete;
  Echo& operator=(const Echo&) = delete;
  ~Echo() { pool.release(region); }

  void* ask(void* message) { return outside.switch_to(inside, live, message); }
};

void round_trip(benchmark::State& state) {
  stack::Pool pool;
  Echo echo(pool);
  for ([[maybe_unused]] auto _ : state) {
    benchmark::DoNotOptimize(echo.ask(&state));
  }
}
BENCHMARK(round_trip);

// Both sides called from a chain of functions: what the processor predicted about their returns
// is put to the test.
[[gnu::noinline]] void* ask_from(Echo& echo, int depth, void* message) {
  if (depth == 0) {
    return echo.ask(message);
  }
  void* answer = ask_from(echo, depth - 1, message);
  asm volatile("" : : : "memory");
  return answer;
}

void round_trip_from_depth(benchmark::State& state) {
  stack::Pool pool;
  Echo echo(pool);
  for ([[maybe_unused]] auto _ : state) {
    benchmark::DoNotOptimize(ask_from(echo, static_cast<int>(state.range(0)), &state));
  }
}
BENCHMARK(round_trip_from_depth)->Arg(4)->Arg(16);

// In turn through many contexts, whose memory competes for the caches.
void round_trip_among(benchmark::State& state) {
  stack::Pool pool;
  std::vector<std::unique_ptr<Echo>> echoes;
  for (std::int64_t i = 0; i < state.range(0); ++i) {
    echoes.push_back(std::make_unique<Echo>(pool));
  }
  std::size_t next = 0;
  for ([[maybe_unused]] auto _ : state) {
    benchmark::DoNotOptimize(echoes[next]->ask(&state));
    next = next + 1 == echoes.size() ? 0 : next + 1;
  }
}
BENCHMARK(round_trip_among)->Arg(10)->Arg(100)->Arg(1000)->Arg(10000);

struct Once {
  Context inside;
  Context outside;
  ExceptionGlobals* live;
};

// A region from the pool, a context on it that ends at once, the region back to the pool.
void create_run_finish(benchmark::State& state) {
  stack::Pool pool;
  stack::Failure failure{};
  Once once;
  once.live = context::thread_exception_globals();
  for ([[maybe_unused]] auto _ : state) {
    const stack::Region region = pool.acquire(failure);
    once.inside.prepare(region.low, region.boundary, [](void* message) {
      auto* self = static_cast<Once*>(message);
      self->inside.leave_for(self->outside, self->live, message);
    });
    once.outside.switch_to(once.inside, once.live, &once);
    once.inside.retire();
    pool.release(region);
  }
}
BENCHMARK(create_run_finish);

}  // namespace
}  // namespace greenlet
