#include <weir/core/log_line.h>
#include <weir/core/log_queue.h>
#include <weir/net/inspect/log.h>
#include <weir/net/inspect/render.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

namespace weir::detail {
namespace {

constexpr logging::Level kLevel = logging::Level::warning;
/// Of each part.
constexpr std::size_t kMostLines = 4096;
/// Of each loop.
constexpr std::size_t kMostEvents = 32;
/// Of text: with what is written around it a fraction of the queue.
constexpr std::size_t kSlice = LogQueue::kCapacity / 8;
constexpr std::size_t kAroundLine = 64;
constexpr auto kLogsPatience = std::chrono::seconds(1);

class Writer {
 public:
  void add(const char* title, std::string_view text) {
    line(title);
    for (std::size_t lines = 0; !text.empty(); ++lines) {
      if (lines == kMostLines) {
        return line(LogLine() << "… and " << std::count(text.begin(), text.end(), '\n')
                              << " lines more, which " << title << " shows");
      }
      const std::size_t end = text.find('\n');
      line(text.substr(0, end));
      text.remove_prefix(std::min(text.size(), end == std::string_view::npos ? end : end + 1));
    }
  }
  /// Whoever asked may end the program next.
  void finish() {
    line("that is all");
    if (!is_stuck_) (void)flush_log(kLogsPatience);
  }

 private:
  void line(std::string_view text) {
    if (is_stuck_) return;
    if (written_ >= kSlice) {
      is_stuck_ = !flush_log(kLogsPatience);
      written_ = 0;
    }
    if (is_stuck_) text = "the rest is left out: the logger takes no more";
    const auto whole = LogLine() << "SIGQUIT: " << text;
    logging::write(kLevel, whole);
    written_ += std::string_view(whole).size() + kAroundLine;
  }

  std::size_t written_ = 0;  // since the queue was empty
  bool is_stuck_ = false;
};

}  // namespace

void log_snapshot(const Snapshot& snapshot) {
  if (!logging::enabled(kLevel)) return;
  Writer writer;
  writer.add("/loops", loops_as_text(snapshot));
  writer.add("/connections", connections_as_text(snapshot));
  writer.add("/tasks", tasks_as_text(snapshot));
  writer.add("/events", events_as_text(snapshot, kMostEvents));
  writer.finish();
}

}  // namespace weir::detail
