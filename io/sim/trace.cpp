#include <weir/io/sim/world_impl.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <map>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

// The trace of a world in the JSON of "Trace Event Format" (Google, 2016), which Perfetto reads.
namespace weir::sim {
namespace {

constexpr std::uint32_t kKernelTrack = 0;  // of a host; loops have their own numbers

std::string json_string(std::string_view text) {
  std::string json = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || c == '"' || c == '\\') {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", byte);
      json += escaped;
    } else {
      json += c;
    }
  }
  return json + '"';
}

/// Of what goes wrong, by chance or by order.
bool is_fault(std::string_view what) {
  static const std::set<std::string_view> others = {"buggify", "cut off", "crash",
                                                    "pause",   "dropped", "connection broken"};
  if (others.find(what) != others.end()) return true;
  for (std::size_t i = 0; i < kFaults; ++i) {
    if (what == name_of(static_cast<Fault>(i))) return true;
  }
  return false;
}

class TraceWriter {
 public:
  explicit TraceWriter(TimePoint start) : start_(start) {}

  void name_process(std::size_t host, const std::string& name) {
    add(start_, R"("ph":"M","name":"process_name",)" + place(host, 0) + R"(,"args":{"name":)" +
                    json_string(name) + "}");
    name_track(host, kKernelTrack, "kernel");
  }
  void name_track(std::size_t host, std::uint32_t track, const std::string& name) {
    add(start_, R"("ph":"M","name":"thread_name",)" + place(host, track) + R"(,"args":{"name":)" +
                    json_string(name) + "}");
  }
  void instant(std::size_t host, const Record& record, const std::string& text) {
    const bool fault = is_fault(record.what);
    add(record.at, R"("ph":"i","s":")" + std::string(fault ? "p" : "t") + R"(","cat":")" +
                       (fault ? "fault" : "event") + R"(","name":)" + json_string(text) + "," +
                       place(host, record.loop));
  }
  /// Arrows go between slices, so each end has one of a nanosecond.
  void segment(std::size_t host, const Record& record) {
    const std::string name =
        json_string(std::string(record.what) + " to port " + std::to_string(record.fd) + ", " +
                    std::to_string(record.value));
    const std::string id = R"(,"id":)" + std::to_string(++arrows_);
    const std::string as = R"(,"cat":"segment","name":)" + name + ",";
    const std::string sender = as + place(record.from, kKernelTrack);
    const std::string receiver = as + place(host, kKernelTrack);
    add(record.sent, R"("ph":"X","dur":0.001)" + sender);
    add(record.sent, R"("ph":"s")" + sender + id);
    add(record.at, R"("ph":"X","dur":0.001)" + receiver);
    add(record.at, R"("ph":"f","bp":"e")" + receiver + id);
  }
  void span(std::size_t host, const char* kind, const std::string& name, TimePoint from,
            TimePoint to) {
    const std::string as = R"(,"cat":")" + std::string(kind) + R"(","name":)" + json_string(name) +
                           R"(,"id":)" + std::to_string(++spans_) + "," + place(host, kKernelTrack);
    add(from, R"("ph":"b")" + as);
    add(to, R"("ph":"e")" + as);
  }

  void write(const std::string& path) {
    errno = 0;
    std::ofstream file(path, std::ios::trunc);
    file << R"({"displayTimeUnit":"ns","traceEvents":[)";
    const char* separator = "\n";
    for (const auto& [at, text] : events_) {
      file << separator << '{' << text << '}';
      separator = ",\n";
    }
    file << "\n]}\n";
    file.close();
    if (!file) {
      throw std::system_error(errno != 0 ? errno : EIO, std::generic_category(), "weir: " + path);
    }
  }

 private:
  static std::string place(std::size_t host, std::uint32_t track) {
    return R"("pid":)" + std::to_string(host + 1) + R"(,"tid":)" + std::to_string(track);
  }
  void add(TimePoint at, const std::string& text) {
    char microseconds[64];
    const long long nanoseconds = std::max<long long>((at - start_).count(), 0);
    std::snprintf(microseconds, sizeof microseconds, R"("ts":%lld.%03lld,)", nanoseconds / 1000,
                  nanoseconds % 1000);
    events_.emplace(at, microseconds + text);
  }

  TimePoint start_;
  std::uint64_t arrows_ = 0;
  std::uint64_t spans_ = 0;
  std::multimap<TimePoint, std::string> events_;  // those of the same time as they came
};

/// From connect or accept to close, or as long as their process.
class ConnectionSpans {
 public:
  ConnectionSpans(TraceWriter& writer, TimePoint end) : writer_(writer), end_(end) {}
  ConnectionSpans(const ConnectionSpans&) = delete;
  ConnectionSpans& operator=(const ConnectionSpans&) = delete;

  void look_at(std::size_t host, const Record& record) {
    const std::string_view what = record.what;
    if (what == "connect" || what == "accepted") {
      end(host, record.fd, record.at);
      open_[{host, record.fd}] = {
          (what == "connect" ? "connection to port " : "connection at port ") +
              std::to_string(record.value),
          record.at};
    } else if (what == "close") {
      end(host, record.fd, record.at);
    } else if (what == "crash" || what == "end of the process") {
      end_all(host, record.at);
    }
  }
  void end_all() {
    while (!open_.empty()) end(open_.begin()->first.first, open_.begin()->first.second, end_);
  }

 private:
  void end(std::size_t host, int fd, TimePoint at) {
    const auto found = open_.find({host, fd});
    if (found == open_.end()) return;
    writer_.span(host, "connection", found->second.name, found->second.since, at);
    open_.erase(found);
  }
  void end_all(std::size_t host, TimePoint at) {
    for (auto next = open_.lower_bound({host, -1});
         next != open_.end() && next->first.first == host; next = open_.lower_bound({host, -1})) {
      end(host, next->first.second, at);
    }
  }

  TraceWriter& writer_;
  TimePoint end_;
  std::map<std::pair<std::size_t, int>, RunningTask> open_;
};

}  // namespace

void World::Impl::write_trace(const std::string& path) {
  const Log& log = network.journal.keep_log();
  const TimePoint end = network.now();
  TraceWriter writer(start());
  ConnectionSpans connections(writer, end);
  for (const auto& host : hosts) writer.name_process(host->impl_->index, host->name());
  std::map<std::size_t, std::set<std::uint32_t>> tracks;
  for (const auto& [host, record] : log) {
    if (record.loop != kKernelTrack) tracks[host].insert(record.loop);
    if (record.from != Record::kNobody) {
      writer.segment(host, record);
    } else {
      writer.instant(host, record, tell(record));
    }
    connections.look_at(host, record);
  }
  connections.end_all();
  for (const auto& [host, loops_of] : tracks) {
    std::size_t number = 0;
    for (const std::uint32_t track : loops_of) {
      writer.name_track(host, track, "loop " + std::to_string(++number));
    }
  }
  for (const EndedTask& ended : ended_tasks) {
    writer.span(ended.host, "task", ended.task.name, ended.task.since, ended.at);
  }
  for (const auto& host : hosts) {
    for (const auto& [number, task] : host->impl_->tasks) {
      writer.span(host->impl_->index, "task", task.name, task.since, end);
    }
  }
  writer.write(path);
}

void World::save_trace(const std::string& path) {
  impl_->write_trace(path);
  impl_->trace_paths.push_back(path);
}

}  // namespace weir::sim
