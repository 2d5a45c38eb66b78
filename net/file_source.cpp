#include <weir/net/file_source.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <new>
#include <system_error>

namespace weir::detail {

struct FileSource::Owner final : BufferOwner {
  void release(Buffer& buffer) noexcept override { delete static_cast<FileSource*>(&buffer); }
  static Owner& instance() noexcept {
    static constinit Owner owner;
    return owner;
  }
};

FileSource::~FileSource() { ::close(file); }

BufferRef FileSource::open(int file, std::uint64_t offset) {
  struct stat info{};
  if (::fstat(file, &info) != 0) {
    throw std::system_error(errno, std::generic_category(), "weir: send_file");
  }
  if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
    throw std::system_error(std::make_error_code(std::errc::invalid_seek),
                            "weir: send_file: the descriptor is no file");
  }
  const int own = ::fcntl(file, F_DUPFD_CLOEXEC, 0);
  if (own < 0) throw std::system_error(errno, std::generic_category(), "weir: send_file");
  try {
    return BufferRef(*new FileSource(Owner::instance(), own, offset));
  } catch (const std::bad_alloc&) {
    ::close(own);
    throw;
  }
}

}  // namespace weir::detail
