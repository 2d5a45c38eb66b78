#include "flood.h"

namespace tls_load {
namespace {

constexpr unsigned kSources = 64;  // see exchange.cpp

}  // namespace

bool Flood::turn(const Tag* ready) {
  if (ready == nullptr) {
    if (opened_ < slots_.size() && run_.begun()) open(opened_++);
  } else if (slots_[ready->index]->shake()) {
    if (run_.measuring()) ++run_.result().flood_handshakes;
    open(ready->index);
  }
  return opened_ < slots_.size() && run_.begun();
}

void Flood::open(std::uint32_t index) {
  std::unique_ptr<Link>& link = slots_[index];
  link.reset();
  link = std::make_unique<Link>(options_.load, context_,
                                static_cast<unsigned>(++handshakes_ % kSources));
  loop_.watch(link->fd(), {Kind::flood, index});
  (void)link->shake();
}

}  // namespace tls_load
