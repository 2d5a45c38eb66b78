// Providers of randomness cannot be changed for a thread alone.
#define OPENSSL_SUPPRESS_DEPRECATED  // NOLINT(readability-identifier-naming)
#include <weir/core/machine.h>
#include <weir/net/tls/simulated_random.h>

#include <openssl/rand.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <mutex>

namespace weir::detail {
namespace {

constinit thread_local int real = 0;

/// When certificates were read last.
std::atomic<std::time_t> last_read{0};
/// The clock of a simulated world when that begins.
constexpr std::chrono::hours kBeginning{1};

/// The machine that this thread is on, if OpenSSL does not belong to it; else nullptr.
Machine* simulated_machine() noexcept {
  Machine& machine = current_machine();
  return &machine == &process_machine() ? nullptr : &machine;
}

int draw(unsigned char* to, int size) {
  Machine* machine = real > 0 ? nullptr : simulated_machine();
  if (machine == nullptr) return ::RAND_OpenSSL()->bytes(to, size);
  std::uint64_t bits = 0;
  for (int i = 0; i < size; ++i, bits >>= 8) {
    if (i % 8 == 0) bits = machine->random();
    to[i] = static_cast<unsigned char>(bits & 0xff);
  }
  return 1;
}

int seed(const void* from, int size) { return ::RAND_OpenSSL()->seed(from, size); }
int add(const void* from, int size, double entropy) {
  return ::RAND_OpenSSL()->add(from, size, entropy);
}
int status() { return ::RAND_OpenSSL()->status(); }

}  // namespace

RealRandom::RealRandom() noexcept { ++real; }
RealRandom::~RealRandom() { --real; }

bool draw_from_simulation() {
  if (simulated_machine() == nullptr) return false;
  static std::once_flag once;
  std::call_once(once, [] {
    static const RAND_METHOD method = {seed, draw, nullptr, add, draw, status};
    ::RAND_set_rand_method(&method);
  });
  return true;
}

void files_were_read() noexcept { last_read = ::time(nullptr); }

std::time_t simulated_time() {
  const auto since = current_machine().now().time_since_epoch() - kBeginning;
  return last_read +
         static_cast<std::time_t>(std::chrono::floor<std::chrono::seconds>(since).count());
}

}  // namespace weir::detail
