#include <weir/core/assert.h>
#include <weir/io/sim/descriptors.h>

namespace weir::sim::detail {
namespace {

/// Numbers far from the process's own descriptors, so that a mix-up is an EBADF.
constexpr int kFirstDescriptor = 1 << 20;

}  // namespace

Descriptor& DescriptorTable::add() {
  std::size_t index = 0;
  while (index < all_.size() && all_[index] != nullptr) ++index;
  if (index == all_.size()) all_.emplace_back();
  all_[index] = std::make_unique<Descriptor>();
  all_[index]->fd = kFirstDescriptor + static_cast<int>(index);
  ++open_;
  return *all_[index];
}

void DescriptorTable::remove(int fd) noexcept {
  [[maybe_unused]] const Descriptor* descriptor = find(fd);
  WEIR_ASSERT(descriptor != nullptr);   // closed twice
  WEIR_ASSERT(!descriptor->awaited());  // an operation still needs it
  all_[static_cast<std::size_t>(fd - kFirstDescriptor)].reset();
  --open_;
}

Descriptor* DescriptorTable::find(int fd) const noexcept {
  const auto index = static_cast<std::size_t>(static_cast<std::int64_t>(fd) - kFirstDescriptor);
  if (fd < kFirstDescriptor || index >= all_.size()) return nullptr;
  return all_[index].get();
}

std::string DescriptorTable::describe_open() const {
  std::string text;
  for (const auto& descriptor : all_) {
    if (descriptor == nullptr) continue;
    text += text.empty() ? "" : ", ";
    text += std::to_string(descriptor->fd);
    if (const Endpoint* endpoint = descriptor->endpoint.get()) {
      text += " (" + endpoint->local.text() + " to " + endpoint->remote.text() + ")";
    }
  }
  return text;
}

std::string DescriptorTable::describe_waiting() const {
  std::string text;
  const auto add = [&text](const char* what, const Descriptor& descriptor) {
    text += text.empty() ? "" : ", ";
    text += what;
    if (const Endpoint* endpoint = descriptor.endpoint.get()) {
      text += " at " + endpoint->local.text();
      if (endpoint->remote.port != 0) text += " from " + endpoint->remote.text();
    }
  };
  for (const auto& descriptor : all_) {
    if (descriptor == nullptr) continue;
    if (descriptor->accept) add("accept", *descriptor);
    if (descriptor->receive) add("receive", *descriptor);
    if (descriptor->send) add("send", *descriptor);
    if (!descriptor->polls.empty()) {
      add(descriptor->signals == 0 ? "readiness" : "a signal", *descriptor);
    }
  }
  return text;
}

}  // namespace weir::sim::detail
