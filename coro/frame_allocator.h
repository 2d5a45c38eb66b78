#pragma once

#include <cstddef>
#include <cstdint>

namespace weir::detail {

/// Memory of coroutine frames and of the loop's small pinned states, recycled by size class in a
/// cache of the calling thread; a block may be freed on another thread than the one that took it.
/// Under sanitizers every call goes to `operator new` and `operator delete`, because recycling
/// would hide a use after free. Throws `std::bad_alloc`.
void* allocate_frame(std::size_t bytes);
void free_frame(void* block, std::size_t bytes) noexcept;

/// Does what the calling thread needs to give its cache back when it ends: without memory the C
/// library ends the process over that (`__cxa_thread_atexit`), so it is best done early.
void prepare_frame_cache() noexcept;

/// Blocks taken and not given back, by the calling thread and by all threads that have ended.
/// Tests compare it before and after a case.
std::int64_t live_frames() noexcept;

/// Takes so many blocks out of that count, or, below zero, back in.
void leave_uncounted(std::int64_t blocks) noexcept;

/// For a base class of whatever is to live in the recycling allocator.
struct FrameAllocated {
  static void* operator new(std::size_t bytes) { return allocate_frame(bytes); }
  static void operator delete(void* block, std::size_t bytes) noexcept { free_frame(block, bytes); }
};

/// The same of what is no part of a coroutine or connection, and may outlive all of them:
/// `live_frames` does not count it.
struct RecycledAllocated {
  static void* operator new(std::size_t bytes) {
    void* block = allocate_frame(bytes);
    leave_uncounted(1);
    return block;
  }
  static void operator delete(void* block, std::size_t bytes) noexcept {
    leave_uncounted(-1);
    free_frame(block, bytes);
  }
};

}  // namespace weir::detail
