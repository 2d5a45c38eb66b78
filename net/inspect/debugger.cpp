#include <weir/core/all_loops.h>
#include <weir/core/event_loop.h>
#include <weir/core/survey.h>
#include <weir/coro/branch.h>
#include <weir/coro/task_group.h>
#include <weir/net/connection.h>
#include <weir/net/inspect/debugger.h>
#include <weir/net/server/share.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

// Says to gdb which script goes with the program (info gdb, ".debug_gdb_scripts"): kind 1, a file.
#ifdef WEIR_GDB_SCRIPT
asm(".pushsection \".debug_gdb_scripts\", \"MS\", %progbits, 1\n"
    ".byte 1\n"
    ".asciz \"" WEIR_GDB_SCRIPT
    "\"\n"
    ".popsection\n");
#endif

// What compilers give for classes without standard layout, too, as long as no base is virtual.
#pragma GCC diagnostic ignored "-Winvalid-offsetof"

namespace weir::detail {
namespace {

/// Gives where a member lies that is private: nobody asks what is named in an explicit
/// instantiation.
template <class Tag, std::uint32_t Value>
struct Give {
  friend constexpr auto value_of(Tag /*which*/) { return Value; }
};

struct Part {
  char name[44] = {};
  std::uint32_t number = 0;
};

constexpr Part part(std::string_view name, std::uint32_t number) {
  Part part;
  for (std::size_t i = 0; i < name.size() && i + 1 < sizeof part.name; ++i) part.name[i] = name[i];
  part.number = number;
  return part;
}

// X(tag, what it is called, value)
#define WEIR_PARTS(X)                                                                  \
  X(AllLoopsEntries, "AllLoops.entries_", offsetof(AllLoops, entries_))                \
  X(LinkNext, "Link.next_", offsetof(Link, next_))                                     \
  X(LoopEntryLink, "LoopEntry.link", offsetof(LoopEntry, link))                        \
  X(LoopEntryNumber, "LoopEntry.number", offsetof(LoopEntry, number))                  \
  X(LoopEntryHidden, "LoopEntry.hidden", offsetof(LoopEntry, hidden))                  \
  X(EventLoopName, "EventLoop.name_", offsetof(EventLoop, name_))                      \
  X(EventLoopEngine, "EventLoop.engine_", offsetof(EventLoop, engine_))                \
  X(EventLoopRunning, "EventLoop.running_", offsetof(EventLoop, running_))             \
  X(EventLoopThread, "EventLoop.thread_", offsetof(EventLoop, thread_))                \
  X(EventLoopResources, "EventLoop.resources_", offsetof(EventLoop, resources_))       \
  X(EventLoopMetrics, "EventLoop.metrics_", offsetof(EventLoop, metrics_))             \
  X(SchedulerTop, "Scheduler.top_", offsetof(Scheduler, top_))                         \
  X(SchedulerRunning, "Scheduler.now_running_", offsetof(Scheduler, now_running_))     \
  X(RunningScope, "Running.scope_", offsetof(Running, scope_))                         \
  X(SchedulerClock, "Scheduler.clock_ms_", offsetof(Scheduler, clock_ms_))             \
  X(SchedulerFlight, "Scheduler.flight", offsetof(Scheduler, flight))                  \
  X(FlightEnd, "FlightRecorder.end_", offsetof(FlightRecorder, end_))                  \
  X(FlightWords, "FlightRecorder.words_", offsetof(FlightRecorder, words_))            \
  X(FlightEvents, "FlightRecorder.kEvents", FlightRecorder::kEvents)                   \
  X(MetricsTurns, "Metrics.turns", offsetof(Metrics, turns))                           \
  X(MetricsResumed, "Metrics.resumed", offsetof(Metrics, resumed))                     \
  X(ScopeBelow, "Scope.below_", offsetof(Scope, below_))                               \
  X(ScopeNext, "Scope.next_", offsetof(Scope, next_))                                  \
  X(ScopeRan, "Scope.ran_ms_", offsetof(Scope, ran_ms_))                               \
  X(ScopeExtra, "Scope.has_extra_", offsetof(Scope, has_extra_))                       \
  X(ScopeKind, "Scope.kind_", offsetof(Scope, kind_))                                  \
  X(RootScope, "Root.scope_", offsetof(Root, scope_))                                  \
  X(RootSpawned, "Root.spawned_", offsetof(Root, spawned_))                            \
  X(PlacedSize, "sizeof Placed", sizeof(Placed))                                       \
  X(MemberSize, "sizeof TaskGroup.Member", sizeof(TaskGroup::Member))                  \
  X(PlaceWhere, "Place.where_", offsetof(Place, where_))                               \
  X(PlaceWhat, "Place.what_", offsetof(Place, what_))                                  \
  X(PlaceSize, "sizeof Place", sizeof(Place))                                          \
  X(JunctionStarted, "Junction.started_", offsetof(Junction, started_))                \
  X(BranchNext, "BranchPromise.next", offsetof(BranchPromise, next))                   \
  X(WaiterScope, "Waiter.scope_", offsetof(Waiter, scope_))                            \
  X(ResourceLink, "LoopResource.link", offsetof(LoopResource, link))                   \
  X(ShareRoster, "Share.roster_", offsetof(Share, roster_))                            \
  X(RosterOpen, "Roster.open_", offsetof(Roster, open_))                               \
  X(ConnectionTransform, "Connection.transform_", offsetof(Connection, transforming_)) \
  X(IdentityOfConnection, "Connection.identity_", offsetof(Connection, identity_))     \
  X(ConnectionInbox, "Connection.inbox_", offsetof(Connection, inbox_))                \
  X(ConnectionOutbox, "Connection.outbox_", offsetof(Connection, outbox_))             \
  X(IdentityReceived, "Identity.received_", offsetof(ConnectionIdentity, received_))   \
  X(IdentityPeer, "Identity.peer_", offsetof(ConnectionIdentity, peer_))               \
  X(InboxUnread, "Inbox.unread_", offsetof(Inbox, unread_))                            \
  X(InboxReader, "Inbox.reader_", offsetof(Inbox, reader_))                            \
  X(InboxHigh, "Inbox.high_", offsetof(Inbox, high_))                                  \
  X(ReaderWaiter, "Reader.waiter", offsetof(Inbox::Reader, waiter))                    \
  X(LevelOfOutbox, "Outbox.level_", offsetof(Outbox, level_))                          \
  X(OutboxHigh, "Outbox.high_", offsetof(Outbox, high_))                               \
  X(OutboxSent, "Outbox.sent_", offsetof(Outbox, sent_))                               \
  X(LevelPending, "OutboxLevel.pending_", offsetof(OutboxLevel, pending_))

#define WEIR_GIVE(tag, name, value)      \
  struct tag {                           \
    friend constexpr auto value_of(tag); \
  };                                     \
  template struct Give<tag, value>;
WEIR_PARTS(WEIR_GIVE)
#undef WEIR_GIVE

}  // namespace

// The script finds it by this name; behind the last there is an empty one.
extern "C" const Part weir_debugger_parts[];
#define WEIR_PART(tag, name, value) part(name, value_of(tag())),
extern "C" constexpr Part weir_debugger_parts[] = {WEIR_PARTS(WEIR_PART) Part()};
#undef WEIR_PART
#undef WEIR_PARTS

void keep_for_debuggers() noexcept { asm volatile("" : : "r"(&weir_debugger_parts[0])); }

}  // namespace weir::detail
