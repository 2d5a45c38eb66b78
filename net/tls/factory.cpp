#include <weir/core/machine.h>
#include <weir/net/tls/factory.h>
#include <weir/net/tls/simulated_random.h>
#include <weir/net/tls/tls_transform.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace weir::detail {
namespace {

constexpr auto kClientHandshake = std::chrono::seconds(10);
/// Sessions that a client keeps: of all servers.
constexpr std::size_t kMostSessions = 256;

std::uint64_t next_id() noexcept {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

/// A thread's contexts of one factory.
struct Made {
  std::uint64_t factory;
  std::uint64_t generation;
  std::weak_ptr<TlsFactory> alive;
  std::shared_ptr<const Contexts> contexts;
};

std::vector<Made>& made_here() {
  thread_local std::vector<Made> made;
  return made;
}

}  // namespace

TlsFactory::TlsFactory(TlsServerOptions options)
    : options_(std::move(options)), protocols_(alpn_list(server()->alpn)), id_(next_id()) {
  if (server()->handshake_timeout.count() < 0) {
    throw std::invalid_argument("weir: TlsServerOptions::handshake_timeout is " +
                                std::to_string(server()->handshake_timeout.count()) +
                                " ms; it must not be negative");
  }
  transform_category.store(&tls_category(), std::memory_order_relaxed);
  tickets_.emplace(process_machine().now());
  put_in_force(load_all({}));
}

TlsFactory::TlsFactory(TlsClientOptions options)
    : options_(std::move(options)), protocols_(alpn_list(client()->alpn)), id_(next_id()) {
  transform_category.store(&tls_category(), std::memory_order_relaxed);
  put_in_force(load_all({}));
}

TlsFactory::~TlsFactory() = default;

std::shared_ptr<const Material> TlsFactory::load_all(const std::vector<Identity>& more) const {
  const RealRandom real_random;
  std::shared_ptr<const Material> material =
      server() == nullptr ? load(*client()) : load(*server(), more);
  (void)make_contexts_of(*material);  // all that may be wrong shows here
  return material;
}

std::shared_ptr<const Contexts> TlsFactory::make_contexts_of(const Material& material) const {
  const RealRandom real_random;
  return server() != nullptr ? make_contexts(material, *server())
                             : make_contexts(material, *client());
}

void TlsFactory::put_in_force(std::shared_ptr<const Material> material) {
  const std::lock_guard lock(mutex_);
  if (!material->ticket_key.empty()) {
    tickets_->use(material->ticket_key, process_machine().now());
  }
  material_.swap(material);
  files_were_read();
  ++generation_;
  sessions_.clear();
}

void TlsFactory::add(Identity identity) {
  if (server() == nullptr) throw std::logic_error("weir: TlsContext::add: it is a client's");
  const std::lock_guard one_at_a_time(reloading_);
  std::vector<Identity> more = more_;
  more.push_back(std::move(identity));
  put_in_force(load_all(more));
  more_ = std::move(more);
}

void TlsFactory::reload() {
  const std::lock_guard one_at_a_time(reloading_);
  put_in_force(load_all(more_));
}

std::shared_ptr<const Contexts> TlsFactory::contexts() {
  std::vector<Made>& made = made_here();
  const std::uint64_t now = generation_.load(std::memory_order_acquire);
  const auto known =
      std::find_if(made.begin(), made.end(), [&](const Made& m) { return m.factory == id_; });
  if (known != made.end() && known->generation == now) return known->contexts;
  std::shared_ptr<const Material> material;
  std::uint64_t generation = 0;
  {
    const std::lock_guard lock(mutex_);
    material = material_;
    generation = generation_;
  }
  auto contexts = make_contexts_of(*material);
  std::erase_if(made, [&](const Made& m) { return m.factory == id_ || m.alive.expired(); });
  made.push_back({id_, generation, weak_from_this(), contexts});
  return contexts;
}

std::unique_ptr<Handshake> TlsFactory::make(std::string_view peer) {
  std::string name(peer);
  if (!name.empty() && name.back() == '.') name.pop_back();
  if (const TlsClientOptions* options = client(); options != nullptr && options->verify) {
    if (name.empty()) {
      throw std::invalid_argument(
          "weir: TLS: there is no name that the server's certificate could be verified for; give "
          "server_name, or leave verify out");
    }
  }
  return std::make_unique<TlsTransform>(shared_from_this(), std::move(name));
}

std::chrono::milliseconds TlsFactory::handshake_timeout() const noexcept {
  return server() != nullptr ? server()->handshake_timeout : kClientHandshake;
}

std::string TlsFactory::secrets() const {
  return tickets_ ? tickets_->secrets(process_machine().now()) : std::string();
}

void TlsFactory::inherit(std::string_view secrets) noexcept {
  if (tickets_) tickets_->inherit(secrets, process_machine().now());
}

bool TlsFactory::allows_truncation() const noexcept {
  return server() != nullptr ? server()->allow_truncation : client()->allow_truncation;
}

void TlsFactory::keep_session(const std::string& peer, SessionPointer session) {
  const std::lock_guard lock(mutex_);
  if (sessions_.size() >= kMostSessions) sessions_.erase(sessions_.begin());
  sessions_.emplace(peer, std::move(session));
}

/// The last one: each ticket of TLS 1.3 is used once, so that connections cannot be told to be of
/// one client (RFC 8446, C.4).
SessionPointer TlsFactory::take_session(const std::string& peer) {
  const std::lock_guard lock(mutex_);
  const auto [first, last] = sessions_.equal_range(peer);
  if (first == last) return nullptr;
  const auto newest = std::prev(last);
  if (::SSL_SESSION_get_protocol_version(newest->second.get()) < TLS1_3_VERSION) {
    ::SSL_SESSION_up_ref(newest->second.get());
    return SessionPointer(newest->second.get());
  }
  SessionPointer session = std::move(newest->second);
  sessions_.erase(newest);
  return session;
}

}  // namespace weir::detail
