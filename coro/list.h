#pragma once

#include <bit>
#include <cstddef>

namespace weir::detail {

/// A link of an intrusive, circular, doubly linked list. Unlinking needs no list, so that the
/// destructor of whatever holds the link can do it, wherever the link is at that moment.
/// Not thread-safe: a link and its list belong to one loop.
class Link {
 public:
  Link() noexcept {}  // NOLINT: `prev_` has a meaning only while linked
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;
  ~Link() { unlink(); }

  [[nodiscard]] bool linked() const noexcept { return next_ != nullptr; }

  /// Tells the compiler of what is in no list, so that it leaves out what the destructor would do.
  void mark_unlinked() noexcept { next_ = nullptr; }

  void unlink() noexcept {
    if (next_ == nullptr) return;
    prev_->next_ = next_;
    next_->prev_ = prev_;
    next_ = nullptr;
  }

 private:
  template <class T>
  friend class List;

  Link* prev_;
  Link* next_ = nullptr;  // nullptr: in no list
};

/// The object of which `part` is the member that `where` names.
template <class Whole, class Part>
[[nodiscard]] Whole* whole_of(Part& part, Part Whole::* where) noexcept {
  const auto offset = std::bit_cast<std::ptrdiff_t>(where);
  return reinterpret_cast<Whole*>(reinterpret_cast<std::byte*>(&part) - offset);
}

/// Which member of an item a list goes by.
struct Hook {
  template <class T>
  static constexpr auto link() noexcept {
    return &T::link;
  }
};

/// A FIFO of objects that have a `Link` as their member `link`. Owns none of them.
template <class T>
class List {
 public:
  List() noexcept { head_.next_ = head_.prev_ = &head_; }
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  ~List() {
    clear();
    head_.next_ = nullptr;
  }

  [[nodiscard]] bool empty() const noexcept { return head_.next_ == &head_; }

  void push_back(T& item) noexcept {
    link_of(item).unlink();
    push_unlinked(item);
  }

  /// The same for what is in no list.
  void push_unlinked(T& item) noexcept {
    Link& link = link_of(item);
    link.prev_ = head_.prev_;
    link.next_ = &head_;
    head_.prev_->next_ = &link;
    head_.prev_ = &link;
  }

  void push_front(T& item) noexcept {
    Link& link = link_of(item);
    link.unlink();
    link.next_ = head_.next_;
    link.prev_ = &head_;
    head_.next_->prev_ = &link;
    head_.next_ = &link;
  }

  /// Behind all others where `place` is nullptr.
  void insert_before(T* place, T& item) noexcept {
    if (place == nullptr) {
      push_back(item);
      return;
    }
    Link& link = link_of(item);
    Link& next = link_of(*place);
    link.unlink();
    link.prev_ = next.prev_;
    link.next_ = &next;
    next.prev_->next_ = &link;
    next.prev_ = &link;
  }

  /// The first item, or nullptr. It stays in the list.
  [[nodiscard]] T* front() const noexcept { return empty() ? nullptr : item_of(head_.next_); }

  /// The last item, or nullptr.
  [[nodiscard]] T* back() const noexcept { return empty() ? nullptr : item_of(head_.prev_); }

  /// The item behind `item`, or nullptr at the end.
  [[nodiscard]] T* after(T& item) const noexcept {
    Link* next = link_of(item).next_;
    return next == &head_ ? nullptr : item_of(next);
  }

  /// Takes the first item out, or gives nullptr.
  T* pop_front() noexcept {
    Link* first = head_.next_;
    if (first == &head_) return nullptr;
    head_.next_ = first->next_;
    first->next_->prev_ = &head_;
    first->next_ = nullptr;
    return item_of(first);
  }

  /// Moves every item of `other` to the end of this list.
  void splice_back(List& other) noexcept {
    if (other.empty()) return;
    other.head_.next_->prev_ = head_.prev_;
    head_.prev_->next_ = other.head_.next_;
    other.head_.prev_->next_ = &head_;
    head_.prev_ = other.head_.prev_;
    other.head_.next_ = other.head_.prev_ = &other.head_;
  }

  void clear() noexcept {
    while (pop_front() != nullptr) {
    }
  }

 private:
  static Link& link_of(T& item) noexcept { return item.*Hook::link<T>(); }
  static T* item_of(Link* link) noexcept {
    return static_cast<T*>(whole_of(*link, Hook::link<T>()));
  }

  Link head_;
};

}  // namespace weir::detail
