// Level-triggered epoll, and what is told apart in it.
#pragma once

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <span>

#include "../load_client/run.h"

namespace tls_load {

enum class Kind : std::uint32_t { connection, input };

struct Tag {
  Kind kind;
  std::uint32_t index;
};

class Loop {
 public:
  Loop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (epoll_ < 0) throw load_client::RunError(load_client::describe("epoll_create1", errno));
  }
  ~Loop() { close(epoll_); }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Closing the descriptor ends it.
  void watch(int fd, Tag tag) { control(EPOLL_CTL_ADD, fd, tag, EPOLLIN); }
  void watch_writing_too(int fd, Tag tag, bool writing) {
    control(EPOLL_CTL_MOD, fd, tag, writing ? EPOLLIN | EPOLLOUT : EPOLLIN);
  }

  // Waits for that long at the most. What it gives is good until the next call.
  std::span<const epoll_event> wait(std::chrono::nanoseconds limit) {
    const timespec timeout{.tv_sec = limit.count() / 1'000'000'000,
                           .tv_nsec = limit.count() % 1'000'000'000};
    const int count =
        epoll_pwait2(epoll_, events_.data(), static_cast<int>(events_.size()), &timeout, nullptr);
    if (count < 0 && errno != EINTR) {
      throw load_client::RunError(load_client::describe("epoll_pwait2", errno));
    }
    return {events_.data(), count < 0 ? 0 : static_cast<std::size_t>(count)};
  }

  static Tag tag_of(const epoll_event& event) {
    return {static_cast<Kind>(event.data.u64 >> 32), static_cast<std::uint32_t>(event.data.u64)};
  }

 private:
  void control(int operation, int fd, Tag tag, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = static_cast<std::uint64_t>(tag.kind) << 32 | tag.index;
    if (epoll_ctl(epoll_, operation, fd, &event) < 0) {
      throw load_client::RunError(load_client::describe("epoll_ctl", errno));
    }
  }

  const int epoll_;
  std::array<epoll_event, 1024> events_{};
};

}  // namespace tls_load
