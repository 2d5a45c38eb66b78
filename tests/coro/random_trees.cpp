// Random trees of tasks, groups and generators which spawn, cancel, destroy and await one another
// at any depth, from coroutines, from destructors and from outside. One seed is one run.
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/async_generator.h>
#include <weir/coro/event.h>
#include <weir/coro/frame_allocator.h>
#include <weir/coro/task_group.h>
#include <weir/coro/timeout.h>
#include <weir/coro/when_any.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "../support/virtual_loop.h"

using namespace weir;
using namespace weir::detail;
using test::VirtualLoop;

namespace {

struct Planned : std::runtime_error {
  Planned() : std::runtime_error("part of the plan") {}
};

/// What the test knows of a spawned task.
struct Known {
  bool dropped = false;  // its group was cancelled or destroyed: it never gets past a suspension
};

class Forest;

/// Stands in a coroutine's frame: what its owner has must outlive it.
class Frame {
 public:
  Frame(Forest& forest, int parent);
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;
  ~Frame();

  const int id;

 private:
  Forest& forest_;
};

/// A group that anybody may cancel, destroy, join or spawn into, at any moment.
class Plot {
 public:
  Plot(Forest& forest, int owner);
  Plot(const Plot&) = delete;
  Plot& operator=(const Plot&) = delete;
  ~Plot();

  void spawn(int depth);
  void cancel();
  void destroy();

  /// nullptr once it was destroyed.
  [[nodiscard]] TaskGroup* group() const { return own_.get(); }

  const int owner;

 private:
  void all_dropped();

  Forest& forest_;
  std::unique_ptr<TaskGroup> own_;
  std::vector<std::shared_ptr<Known>> known_;
};

/// A generator that anybody may destroy, and whom it does not contain may await.
class Well {
 public:
  Well(Forest& forest, int owner);
  Well(const Well&) = delete;
  Well& operator=(const Well&) = delete;
  ~Well();

  void destroy() { generator.reset(); }

  const int owner;
  int body = -1;  // its frame, once it has begun
  AsyncGenerator<int> generator;

 private:
  Forest& forest_;
};

class Forest {
 public:
  explicit Forest(std::uint64_t seed) : state_(seed) {}

  std::uint64_t random() {  // SplitMix64
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }
  std::uint64_t below(std::uint64_t bound) { return random() % bound; }

  /// False once enough has happened.
  bool may_act() { return budget_ > 0 && budget_-- > 0; }
  void end() { budget_ = 0; }

  Task<> grow(std::shared_ptr<Known> known, int parent, int depth);
  AsyncGenerator<int> flow(Well& well, int depth);
  Task<int> nested(int parent, int depth);

  /// Something that needs no suspension.
  void act(int depth);

  bool is_below(int frame, int ancestor) const {
    for (auto found = parents.find(frame); found != parents.end();
         found = parents.find(found->second)) {
      if (found->first == ancestor) return true;
    }
    return false;
  }

  std::map<int, int> parents;  // of the frames that are there
  int last_frame = 0;
  std::vector<Plot*> plots;
  std::vector<Well*> wells;
  Event event;
  std::size_t suspensions = 0;
  std::size_t dropped = 0;

 private:
  Task<> wait(const std::shared_ptr<Known>& known);

  std::uint64_t state_;
  int budget_ = 250;
};

Frame::Frame(Forest& forest, int parent) : id(++forest.last_frame), forest_(forest) {
  forest.parents[id] = parent;
}

Frame::~Frame() {
  const int parent = forest_.parents[id];
  CHECK((parent == 0 || forest_.parents.contains(parent)));
  if (forest_.below(4) == 0) forest_.act(3);
  CHECK((parent == 0 || forest_.parents.contains(parent)));
  forest_.parents.erase(id);
}

Plot::Plot(Forest& forest, int owning)
    : owner(owning), forest_(forest), own_(std::make_unique<TaskGroup>()) {
  forest.plots.push_back(this);
}

Plot::~Plot() {
  destroy();
  std::erase(forest_.plots, this);
}

void Plot::spawn(int depth) {
  if (group() == nullptr) return;
  auto known = std::make_shared<Known>();
  known_.push_back(known);
  group()->spawn(forest_.grow(std::move(known), owner, depth));
}

void Plot::all_dropped() {
  for (const auto& known : std::exchange(known_, {})) {
    known->dropped = true;
    ++forest_.dropped;
  }
}

void Plot::cancel() {
  if (group() == nullptr) return;
  all_dropped();
  group()->cancel();
}

void Plot::destroy() {
  if (own_ == nullptr) return;
  all_dropped();
  own_.reset();  // nothing of this is touched from here on: its destructors may end it
}

Well::Well(Forest& forest, int owning)
    : owner(owning), generator(forest.flow(*this, 2)), forest_(forest) {
  forest.wells.push_back(this);
}

Well::~Well() {
  std::erase(forest_.wells, this);
  generator.reset();
}

void Forest::act(int depth) {
  if (!may_act()) return;
  const auto plot = [this]() -> Plot* {
    return plots.empty() ? nullptr : plots[below(plots.size())];
  };
  switch (below(8)) {
    case 0:
    case 1:
      if (Plot* chosen = plot()) chosen->cancel();
      break;
    case 2:
      if (Plot* chosen = plot()) chosen->destroy();
      break;
    case 3:
      if (!wells.empty()) wells[below(wells.size())]->destroy();
      break;
    case 4:
      event.set();
      event.reset();
      break;
    default:
      if (Plot* chosen = plot()) chosen->spawn(depth);
  }
}

Task<> Forest::wait(const std::shared_ptr<Known>& known) {
  // Outside of the tree: `known` alone says whether its task may go on.
  ++suspensions;
  if (below(2) == 0) {
    co_await yield();
  } else {
    co_await sleep(std::chrono::milliseconds(1 + below(5)));
  }
  CHECK_FALSE(known->dropped);
}

Task<> Forest::grow(std::shared_ptr<Known> known, int parent, int depth) {
  const Frame frame(*this, parent);
  std::unique_ptr<Plot> own_plot;
  std::unique_ptr<Well> own_well;
  const auto steps = 1 + below(6);
  for (std::uint64_t step = 0; step < steps && may_act(); ++step) {
    switch (below(12)) {
      case 0:
      case 1:
      case 2:
        co_await wait(known);
        break;
      case 3:
      case 4:
        if (depth > 0 && own_plot == nullptr) own_plot = std::make_unique<Plot>(*this, frame.id);
        if (depth > 0) own_plot->spawn(depth - 1);
        break;
      case 5:
        if (depth > 0 && own_well == nullptr) own_well = std::make_unique<Well>(*this, frame.id);
        break;
      case 6: {
        // Of a generator that this frame, or one that owns it, has; not from inside of it.
        std::vector<Well*> reachable;
        for (Well* well : wells) {
          if (is_below(frame.id, well->owner) && !is_below(frame.id, well->body)) {
            reachable.push_back(well);
          }
        }
        if (reachable.empty()) break;
        Well& well = *reachable[below(reachable.size())];
        try {
          (void)co_await as_tuple(timeout(3ms, well.generator.next()));
        } catch (const Planned&) {
        } catch (const std::logic_error&) {
          // somebody else awaits it
        }
        break;
      }
      case 7:
        (void)co_await as_tuple(timeout(4ms, nested(frame.id, depth)));
        break;
      case 8:
        (void)co_await when_any(nested(frame.id, depth), wait(known));
        break;
      case 9: {
        if (plots.empty()) break;
        Plot& plot = *plots[below(plots.size())];
        if (plot.group() == nullptr) break;
        try {
          (void)co_await as_tuple(timeout(4ms, plot.group()->join()));
        } catch (const Planned&) {
        }
        break;
      }
      case 10:
        (void)co_await as_tuple(timeout(5ms, event.wait()));
        break;
      default:
        act(depth);
    }
  }
  if (below(10) == 0) throw Planned();
}

Task<int> Forest::nested(int parent, int depth) {
  const Frame frame(*this, parent);
  const auto known = std::make_shared<Known>();
  if (depth > 0 && below(2) == 0) {
    Plot plot(*this, frame.id);
    plot.spawn(depth - 1);
    co_await wait(known);
  }
  act(depth);
  co_await wait(known);
  co_return 1;
}

AsyncGenerator<int> Forest::flow(Well& well, int depth) {
  const Frame frame(*this, well.owner);
  well.body = frame.id;
  const auto known = std::make_shared<Known>();
  std::unique_ptr<Plot> plot;
  for (int i = 0; may_act(); ++i) {
    if (below(3) == 0) co_await wait(known);
    if (plot == nullptr && below(2) == 0) plot = std::make_unique<Plot>(*this, frame.id);
    if (plot != nullptr && below(2) == 0) plot->spawn(depth);
    if (below(4) == 0) act(depth);
    if (below(20) == 0) throw Planned();
    co_yield i;
  }
}

struct Totals {
  std::size_t frames = 0;
  std::size_t suspensions = 0;
  std::size_t dropped = 0;
};

void run_forest(std::uint64_t seed, Totals& totals) {
  INFO("seed: ", seed);
  const auto frames = live_frames();
  {
    VirtualLoop loop;
    Forest forest(seed);
    {
      Plot root(forest, 0);
      for (int i = 0; i < 3; ++i) root.spawn(4);
      for (int i = 0; i < 40; ++i) {
        switch (forest.below(3)) {
          case 0:
            forest.act(3);
            break;
          case 1:
            (void)loop.step();
            break;
          default:
            loop.advance(1ms);
        }
      }
      if (forest.below(2) == 0) loop.advance(1s);
    }
    loop.settle();
    CHECK(forest.parents.empty());
    CHECK(forest.plots.empty());
    CHECK(forest.wells.empty());
    totals.frames += static_cast<std::size_t>(forest.last_frame);
    totals.suspensions += forest.suspensions;
    totals.dropped += forest.dropped;
  }
  CHECK(live_frames() == frames);
}

/// WEIR_TREES=COUNT or FIRST:COUNT runs others than the usual ones.
std::pair<std::uint64_t, std::uint64_t> seeds() {
  const char* text = std::getenv("WEIR_TREES");
  if (text == nullptr) return {1, 3000};
  char* rest = nullptr;
  const std::uint64_t first = std::strtoull(text, &rest, 10);
  if (*rest != ':') return {1, first};
  return {first, std::strtoull(rest + 1, nullptr, 10)};
}

}  // namespace

TEST_CASE("random trees of tasks, groups and generators spawn, cancel and destroy one another") {
  const auto [first, count] = seeds();
  Totals totals;
  for (std::uint64_t seed = first; seed < first + count; ++seed) run_forest(seed, totals);
  MESSAGE(totals.frames, " frames, ", totals.suspensions, " suspensions, ", totals.dropped,
          " tasks dropped");
  CHECK(totals.frames > 10 * count);
  CHECK(totals.suspensions > 3 * count);
  CHECK(totals.dropped > 3 * count);
}

TEST_CASE("no body of a generator ends below a destructor of what it owns, whoever awaits it") {
  // In these a destructor of a task that stands below a generator's body starts one that awaits it.
  Totals totals;
  for (const std::uint64_t seed : {49233U, 72467U, 101788U}) run_forest(seed, totals);
  CHECK(totals.frames > 100);
}
