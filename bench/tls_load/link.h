// One connection to the server: its bytes through TLS, or as they are. Never waits.
#pragma once

#include <openssl/ssl.h>

#include <cstddef>
#include <memory>

#include "../load_client/report.h"
#include "options.h"

namespace tls_load {

template <auto Function>
struct Freeing {
  template <typename T>
  void operator()(T* object) const {
    Function(object);
  }
};
using Context = std::unique_ptr<SSL_CTX, Freeing<SSL_CTX_free>>;
using Session = std::unique_ptr<SSL_SESSION, Freeing<SSL_SESSION_free>>;

// What a client of TLS needs: one version, one cipher suite, one group, so that all servers do the
// same work. Counts the records of its connections in `records`, which outlives it. Throws
// RunError.
Context make_context(load_client::Records& records);

class Link {
 public:
  // Begins to connect. Without a context there is no TLS. `source` as of load_client::open_socket.
  // Keeps the newest session that the server gives, if `newest` is not null.
  Link(const load_client::Options& options, SSL_CTX* context, unsigned source,
       Session* newest = nullptr);
  ~Link();  // says that all was said, as a client does that will come back
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  int fd() const { return fd_; }
  // Goes on with the handshake. True when it is done, false when it waits for an event.
  bool shake();
  // The next bytes, at most one record's; 0: nothing is there. All throw RunError when the server
  // has closed or broken the connection.
  std::size_t read(char* to, std::size_t size);
  // What has been taken from the socket already has more to give.
  bool has_more() const { return ssl_ != nullptr && SSL_has_pending(ssl_.get()) == 1; }
  // How many of these bytes went; if it is 0, the same and perhaps more have to come again.
  std::size_t write(const char* data, std::size_t size);
  // The last call did nothing and waits for the socket to take bytes, not to bring some.
  bool waits_to_write() const { return waits_to_write_; }
  bool resumed() const { return SSL_session_reused(ssl_.get()) == 1; }

 private:
  std::size_t outcome(const char* what, bool ok, std::size_t count);

  int fd_ = -1;
  std::unique_ptr<SSL, Freeing<SSL_free>> ssl_;
  bool waits_to_write_ = false;
};

}  // namespace tls_load
