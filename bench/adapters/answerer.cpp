// answerer --port N: a name server (RFC 1035) on 127.0.0.1 for which every name has one IPv4
// address and no other, in a loop of blocking calls.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <string>

namespace {

constexpr std::size_t kHeader = 12;

/// Makes an answer of the question, in its place; its size, or 0 if it is none.
std::size_t answer(std::array<char, 1024>& packet, std::size_t size) {
  std::size_t at = kHeader;
  while (at < size && packet[at] != 0) at += static_cast<unsigned char>(packet[at]) + 1U;
  if (at + 5 > size) return 0;
  const bool ipv4 = packet[at + 1] == 0 && packet[at + 2] == 1;
  at += 5;
  const std::string head("\x81\x80\0\x01\0\0\0\0\0\0", 10);  // of one question, no answer
  head.copy(packet.data() + 2, head.size());
  if (!ipv4) return at;
  packet[7] = 1;
  const std::string record("\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01", 16);
  return at + record.copy(packet.data() + at, record.size());
}

}  // namespace

int main(int argc, char** argv) {
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (argc == 3) address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(argv[2])));
  socklen_t size = sizeof address;
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::perror("answerer: bind");
    return 1;
  }
  std::printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  std::array<char, 1024> packet{};
  for (;;) {
    sockaddr_in from{};
    size = sizeof from;
    const ssize_t count = ::recvfrom(fd, packet.data(), packet.size() / 2, 0,
                                     reinterpret_cast<sockaddr*>(&from), &size);
    if (count < static_cast<ssize_t>(kHeader)) continue;
    const std::size_t length = answer(packet, static_cast<std::size_t>(count));
    if (length != 0)
      ::sendto(fd, packet.data(), length, 0, reinterpret_cast<sockaddr*>(&from), size);
  }
}
