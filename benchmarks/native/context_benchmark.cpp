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

// Both sides switch at the end of the same chain of calls, as greenlets do (interpreter, method,
// switch): the returns afterwards are predicted if the switch keeps calls and returns paired.
[[gnu::noinline]] void* switch_from(int depth, Context& from, Context& to, ExceptionGlobals* live) {
  void* message =
      depth == 0 ? from.switch_to(to, live, nullptr) : switch_from(depth - 1, from, to, live);
  asm volatile("" : : : "memory");  // no tail call
  return message;
}

struct Twin {
  Context inside;
  Context outside;
  ExceptionGlobals* live;
  int depth;
};

[[gnu::noinline]] void switch_often(int depth, Context& from, Context& to, ExceptionGlobals* live,
                                    benchmark::IterationCount times) {
  for (benchmark::IterationCount i = 0; i < times; ++i) {
    switch_from(depth, from, to, live);
  }
}

void symmetric_round_trip(benchmark::State& state) {
  constexpr benchmark::IterationCount kBatch = 1000;
  stack::Pool pool;
  stack::Failure failure{};
  const stack::Region region = pool.acquire(failure);
  Twin twin{.inside = {},
            .outside = {},
            .live = context::thread_exception_globals(),
            .depth = static_cast<int>(state.range(0))};
  twin.inside.prepare(region.low, region.boundary, [](void* message) {
    auto* self = static_cast<Twin*>(message);
    for (;;) {
      switch_often(self->depth, self->inside, self->outside, self->live, kBatch);
    }
  });
  twin.outside.switch_to(twin.inside, twin.live, &twin);
  while (state.KeepRunningBatch(kBatch)) {
    switch_often(twin.depth, twin.outside, twin.inside, twin.live, kBatch);
  }
  pool.release(region);
}
BENCHMARK(symmetric_round_trip)->Arg(0)->Arg(4)->Arg(8);

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
