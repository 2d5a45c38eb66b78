// A user's program that has names of its own which the library might have as well. It is a test
// that it compiles.
#include <weir/weir.h>

#include <string>
#include <vector>

using namespace weir;

struct Link {
  int to = 0;
};
struct Buffer {
  std::string bytes;
};
struct Timer {
  int ticks = 0;
};
struct Stream {
  Buffer buffer;
  Timer timer;
};
struct Segment {
  Link link;
};
struct Task_ {
  Segment segment;
};
struct Machine {
  Stream stream;
};
enum class Level { low, high };
struct Root {
  Level level = Level::low;
};
struct Scope {
  Root root;
};
template <class T>
struct List {
  std::vector<T> items;
};

// Those that the library had in the user's way once.
struct Operation {};
struct Completion {};
struct Slice {};
struct Scheduler {};
struct Waiter {};
struct Mailbox {};
struct Sockets {};
struct Reference {};
struct Timeout {};
struct Connection {};
struct Inbox {};
struct Outbox {};
struct Posted {};
struct Random {};
struct Record {};
struct Result {};
struct Failure {};
struct Transform {};
struct Walk {};
inline int after(int number) { return number + 1; }
inline int to_duration(int number) { return number; }
inline int listen(const Sockets& /*sockets*/) { return 0; }

static Task<int> count(List<Machine> machines, Scope scope) {
  co_await sleep(1ms);
  int sum = scope.root.level == Level::high ? after(1) : 0;
  for (const Machine& machine : machines.items) sum += machine.stream.timer.ticks;
  co_return to_duration(sum);
}

int main() {
  List<Machine> machines;
  machines.items.push_back({Stream{Buffer{"bytes"}, Timer{2}}});
  const Task_ task{Segment{Link{3}}};
  [[maybe_unused]] const Operation operation;
  [[maybe_unused]] const Completion completion;
  [[maybe_unused]] const Slice slice;
  [[maybe_unused]] const Scheduler scheduler;
  [[maybe_unused]] const Waiter waiter;
  [[maybe_unused]] const Mailbox mailbox;
  [[maybe_unused]] const Reference reference;
  [[maybe_unused]] const Timeout none;
  [[maybe_unused]] const Connection connection;
  [[maybe_unused]] const Inbox inbox;
  [[maybe_unused]] const Outbox outbox;
  [[maybe_unused]] const Posted posted;
  [[maybe_unused]] const Random random;
  [[maybe_unused]] const Record record;
  [[maybe_unused]] const Result result;
  [[maybe_unused]] const Failure failure;
  [[maybe_unused]] const Transform transform;
  [[maybe_unused]] const Walk walk;
  const int sum = weir::run(count(std::move(machines), Scope{Root{Level::high}}));
  return sum == 4 && task.segment.link.to == 3 && listen(Sockets{}) == 0 ? 0 : 1;
}
