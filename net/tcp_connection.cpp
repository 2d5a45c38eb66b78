#include <weir/net/file_source.h>
#include <weir/net/tcp_connection.h>

#include <cerrno>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <system_error>

namespace weir {

TcpConnection::TcpConnection(EventLoop& loop, Socket socket, ConnectionOptions options) {
  detail::check(options);
  connection_ = detail::Connection::adopt(loop, std::move(socket), options);
}

detail::SendAwaiter TcpConnection::send_file(int file, std::uint64_t offset, std::size_t length) {
  if (file < 0) {
    throw std::invalid_argument("weir: send_file: the descriptor is " + std::to_string(file));
  }
  // An offset of -1 would be the descriptor's own position (io_uring_enter(2)).
  constexpr std::uint64_t kLast = std::numeric_limits<std::int64_t>::max();
  if (length > kLast || offset > kLast - length) {
    throw std::invalid_argument("weir: send_file: no file has " + std::to_string(length) +
                                " bytes at offset " + std::to_string(offset));
  }
  return detail::SendAwaiter(outbox(), detail::FileSource::open(file, offset), length);
}

void TcpConnection::set_water_marks(WaterMarks marks) {
  detail::check(marks, 1, "ConnectionOptions");
  connection().outbox().set_marks(marks);
}

void TcpConnection::set_option(detail::Sockets::Option option, bool on, const char* what) {
  detail::Connection& of = connection();
  const int result = of.fd() < 0 ? -ENOTCONN : of.loop().sockets().set(of.fd(), option, on ? 1 : 0);
  if (result < 0) throw std::system_error(-result, std::generic_category(), what);
}

void TcpConnection::set_no_delay(bool on) {
  set_option(detail::Sockets::Option::no_delay, on, "weir: set_no_delay");
}

void TcpConnection::set_keep_alive(bool on) {
  set_option(detail::Sockets::Option::keep_alive, on, "weir: set_keep_alive");
}

}  // namespace weir
