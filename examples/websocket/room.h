#pragma once

#include <weir/weir.h>

#include <cstddef>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace websocket {

/// Who is in the chat. The mutex is never held across a `co_await`, and sending under it does not
/// wait: so all get the same messages in the same order, and nobody one after it has left.
class Room {
 public:
  class Member {
   public:
    /// Nothing comes before the greeting, and all that is said once it is there comes.
    Member(Room& room, const weir::Sender& sender, std::string greeting)
        : room_(room), sender_(sender) {
      const std::lock_guard lock(room_.mutex_);
      (void)sender_.try_send(std::move(greeting));
      room_.members_.push_back(this);
    }
    Member(const Member&) = delete;
    Member& operator=(const Member&) = delete;
    ~Member() {
      const std::lock_guard lock(room_.mutex_);
      std::erase(room_.members_, this);
    }

   private:
    friend class Room;
    Room& room_;
    const weir::Sender& sender_;
  };

  /// Gives how many bytes everybody has been told by now.
  std::size_t broadcast(const weir::SharedBytes& frame) {
    const std::lock_guard lock(mutex_);
    for (const Member* member : members_) {
      if (!member->sender_.try_send(frame)) member->sender_.force_close();
    }
    return told_ += frame.size();
  }

 private:
  std::mutex mutex_;
  std::vector<Member*> members_;
  std::size_t told_ = 0;
};

}  // namespace websocket
