#include <weir/net/tcp_connection.h>

#include <cerrno>

namespace weir {
namespace {

/// A buffer that keeps alive what the user gave away.
template <class Container>
class AdoptedBuffer final : public Buffer, public FrameAllocated {
 public:
  explicit AdoptedBuffer(Container&& bytes)
      : Buffer(owner(), nullptr, 0, 0), bytes_(std::move(bytes)) {}
  [[nodiscard]] const std::byte* bytes() const noexcept {
    return reinterpret_cast<const std::byte*>(bytes_.data());
  }

 private:
  struct Owner final : BufferOwner {
    void release(Buffer& buffer) noexcept override { delete static_cast<AdoptedBuffer*>(&buffer); }
  };
  static Owner& owner() noexcept {
    static constinit Owner instance;
    return instance;
  }

  Container bytes_;
};

template <class Container>
Chunk adopt(Container bytes) {
  const std::size_t size = bytes.size();
  if (size == 0) return {};
  auto* adopted = new AdoptedBuffer<Container>(std::move(bytes));
  return Chunk(BufferRef(*adopted), adopted->bytes(), size);
}

}  // namespace

void detail::throw_system_error(int error) { throw std::system_error(code_of(error)); }

bool TcpConnection::SendAwaiter::try_send() {
  Message sent = std::move(message);
  message.~Message();
  ::new (&waiting) Stream::Send(sent.stream);
  tried_ = true;
  waiting.data = sent.data;
  waiting.size = sent.size;
  waiting.buffer = std::move(sent.buffer);
  if (waiting.stream != nullptr) return waiting.stream->try_send(waiting);
  waiting.error = ENOTCONN;
  return true;
}

void TcpConnection::SendAwaiter::end_send() noexcept {
  if (waiting.linked() && waiting.stream != nullptr) waiting.stream->stop_sending(waiting);
  waiting.~Send();
}

TcpConnection::TcpConnection(EventLoop& loop, Socket socket, ConnectionOptions options) {
  Stream::check(options);
  stream_ = Stream::adopt(loop, std::move(socket), options);
}

TcpConnection::ReadUntilAwaiter TcpConnection::read_until(std::string_view delimiter,
                                                          std::size_t max) {
  if (delimiter.empty() || delimiter.size() > max) {
    throw std::invalid_argument(
        "weir: read_until: the delimiter has " + std::to_string(delimiter.size()) +
        " bytes; it must have at least one, and no more than max, " + std::to_string(max));
  }
  return ReadUntilAwaiter(stream_, delimiter, max);
}

TcpConnection::SendAwaiter TcpConnection::send(std::string&& bytes) {
  return SendAwaiter(stream_, adopt(std::move(bytes)));
}

TcpConnection::SendAwaiter TcpConnection::send(std::vector<std::byte>&& bytes) {
  return SendAwaiter(stream_, adopt(std::move(bytes)));
}

TcpConnection::SendAwaiter TcpConnection::send_file(int file, std::uint64_t offset,
                                                    std::size_t length) {
  if (file < 0) {
    throw std::invalid_argument("weir: send_file: the descriptor is " + std::to_string(file));
  }
  return SendAwaiter(stream_, Stream::file_part(file, offset), length);
}

void TcpConnection::set_option(Sockets::Option option, bool on, const char* what) {
  Stream& connection = stream();
  const int result = connection.fd() < 0
                         ? -ENOTCONN
                         : connection.loop().sockets().set(connection.fd(), option, on ? 1 : 0);
  if (result < 0) throw std::system_error(-result, std::generic_category(), what);
}

void TcpConnection::set_no_delay(bool on) {
  set_option(Sockets::Option::no_delay, on, "weir: set_no_delay");
}

void TcpConnection::set_keep_alive(bool on) {
  set_option(Sockets::Option::keep_alive, on, "weir: set_keep_alive");
}

}  // namespace weir
