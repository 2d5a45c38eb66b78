#pragma once

#include <cstddef>

namespace weir {

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

  void unlink() noexcept {
    if (next_ == nullptr) return;
    prev_->next_ = next_;
    next_->prev_ = prev_;
    next_ = nullptr;
  }

 private:
  template <class T, class Tag>
  friend class List;

  Link* prev_;
  Link* next_ = nullptr;  // nullptr: in no list
};

/// Names one of several links of the same object: `class Connection : public TaggedLink<Dirty>`.
template <class Tag>
class TaggedLink : public Link {};

/// A FIFO of objects that derive from `Link` (or from `TaggedLink<Tag>`). Owns none of them.
template <class T, class Tag = void>
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
    Link& link = link_of(item);
    link.unlink();
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

  /// The first item, or nullptr. It stays in the list.
  [[nodiscard]] T* front() const noexcept { return empty() ? nullptr : item_of(head_.next_); }

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
  template <class U>
  struct LinkType {
    using type = TaggedLink<U>;
  };
  template <class U>
    requires(__is_same(U, void))
  struct LinkType<U> {
    using type = Link;
  };
  using Base = typename LinkType<Tag>::type;

  static Link& link_of(T& item) noexcept { return static_cast<Base&>(item); }
  static T* item_of(Link* link) noexcept { return static_cast<T*>(static_cast<Base*>(link)); }

  Link head_;
};

}  // namespace weir
