// Full handshakes without end, over some slots, beside a load that is measured.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "../load_client/run.h"
#include "link.h"
#include "loop.h"

namespace tls_load {

class Flood {
 public:
  Flood(const Options& options, load_client::Run& run, Loop& loop, SSL_CTX* context)
      : options_(options), run_(run), loop_(loop), context_(context), slots_(options.flood) {}

  // One step, of one handshake: the load that is measured does not wait for more of them. True if
  // it wants another though nothing comes.
  bool turn(const Tag* ready);

 private:
  void open(std::uint32_t index);

  const Options& options_;
  load_client::Run& run_;
  Loop& loop_;
  SSL_CTX* const context_;
  std::vector<std::unique_ptr<Link>> slots_;
  std::uint32_t opened_ = 0;
  std::uint64_t handshakes_ = 0;
};

}  // namespace tls_load
