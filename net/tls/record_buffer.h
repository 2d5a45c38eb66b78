#pragma once

#include <weir/core/buffer.h>

#include <cstddef>

namespace weir::detail {

/// Enough for a record, with what it has besides, and for what is in it.
inline constexpr std::size_t kRecordBuffer = 17 << 10;

/// A buffer of at least that capacity; those between the sizes that `make_buffer` recycles and a
/// record's are recycled here, by the thread, since giving such memory back to the system and
/// faulting it in again costs more than the cipher. Throws `std::bad_alloc`.
BufferRef make_record_buffer(std::size_t capacity);

}  // namespace weir::detail
