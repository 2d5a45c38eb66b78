#include <weir/io/sim/journal.h>

#include <cstring>
#include <map>
#include <utility>

namespace weir::sim::detail {

void Journal::mix(std::uint64_t value) noexcept {
  hash_ = (hash_ ^ value) * 0x9e3779b97f4a7c15;
  hash_ ^= hash_ >> 29;
}

void Journal::mix_event(std::size_t host, const char* what, int fd, std::int64_t value,
                        std::span<const std::byte> bytes) {
  mix(static_cast<std::uint64_t>(now_.time_since_epoch().count()));
  mix(host);
  for (const char* c = what; *c != '\0'; ++c) mix(static_cast<unsigned char>(*c));
  mix(static_cast<std::uint64_t>(fd));
  mix(static_cast<std::uint64_t>(value));
  while (bytes.size() >= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data(), 8);
    mix(word);
    bytes = bytes.subspan(8);
  }
  for (const std::byte byte : bytes) mix(static_cast<std::uint64_t>(byte));
  if (counts_ != nullptr) ++(*counts_)[{host, what}];
}

void Journal::trace(std::size_t host, const char* what, int fd, std::int64_t value) {
  mix_event(host, what, fd, value, {});
  remember(host, {.at = now_, .what = what, .fd = fd, .value = value, .loop = loop_});
}

void Journal::trace_segment(std::size_t host, const char* what, int port, std::int64_t value,
                            std::span<const std::byte> bytes, std::size_t from, TimePoint sent) {
  mix_event(host, what, port, value, bytes);
  remember(host, {.at = now_,
                  .what = what,
                  .fd = port,
                  .value = value,
                  .from = static_cast<std::uint32_t>(from),
                  .sent = sent});
}

void Journal::note(std::size_t host, const char* what, std::string text) {
  remember(host, {.at = now_, .what = what, .text = std::move(text), .loop = loop_});
}

const Log& Journal::keep_log() {
  if (log_ != nullptr) return *log_;
  log_ = std::make_unique<Log>();
  std::multimap<TimePoint, std::pair<std::size_t, Record>> in_order;
  for (std::size_t host = 0; host < histories_.size(); ++host) {
    for (const Record& record : histories_[host])
      in_order.emplace(record.at, std::pair(host, record));
  }
  log_->reserve(in_order.size());
  for (auto& [at, record] : in_order) log_->push_back(std::move(record));
  return *log_;
}

void Journal::remember(std::size_t host, Record&& record) {
  if (log_ != nullptr) [[unlikely]]
    log_->emplace_back(host, record);
  if (most_ == 0) return;
  std::deque<Record>& history = histories_[host];
  if (history.size() >= most_) history.pop_front();
  history.push_back(std::move(record));
}

}  // namespace weir::sim::detail
