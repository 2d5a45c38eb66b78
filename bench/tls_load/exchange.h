// Connections one after another (churn), or many that then do nothing (idle).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "../load_client/run.h"
#include "link.h"
#include "loop.h"

namespace tls_load {

using load_client::Clock;
using load_client::Run;

class Exchange {
 public:
  Exchange(const Options& options, Run& run, Loop& loop, SSL_CTX* context);

  void start();
  void handle(Tag tag);
  void end_turn();
  bool finished() const { return run_.ended() && (!churns() || run_.outstanding() == 0); }
  static Clock::time_point due() { return Clock::time_point::max(); }

 private:
  struct Slot {
    std::unique_ptr<Link> link;
    Session session;  // the newest
    std::uint64_t exchanges = 0;
    Clock::time_point started{};
    bool shaken = false;
    bool over = false;  // idle: all was done
    bool watches_writing = false;
    std::size_t place = 0;  // in the pattern
    std::size_t sent = 0;
    std::size_t received = 0;
  };

  bool churns() const { return options_.load.mode == load_client::Mode::churn; }
  bool echoes() const { return churns() || options_.load.idle_echo; }
  void open(std::uint32_t index);
  void go_on(std::uint32_t index);
  void is_over(std::uint32_t index);
  void all_stand();
  void input_arrived();

  const Options& options_;
  Run& run_;
  Loop& loop_;
  SSL_CTX* const context_;
  const std::size_t size_;
  std::vector<Slot> slots_;
  std::vector<char> buffer_;
  std::size_t opened_ = 0;
  std::size_t standing_ = 0;
  std::uint64_t exchanges_ = 0;
};

}  // namespace tls_load
