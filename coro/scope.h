#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace weir::detail {

class Locals;

/// A node of the tree of what owns what: a task group stands below the task that made it, the
/// group's tasks below the group. It answers one question: would destroying this end the very
/// coroutine that is running now? Then the destruction waits until that coroutine suspends.
///
/// A scope of a task has that task's values of `TaskLocal`; what only groups or serves others (a
/// `TaskGroup`, the body of a generator) stands for the task above it.
class Scope {
 public:
  /// `task` and `generator` are the scopes of a `Root`. `branch`: a task that its parent's frames
  /// own, and that need not be known to the parent.
  enum class Kind : std::uint8_t { task, group, generator, branch };

  explicit Scope(Scope* parent, Kind kind = Kind::task) noexcept : parent_(parent), kind_(kind) {
    if (kind != Kind::branch) link();
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  /// What stands below it goes to its parent: it may outlive this scope.
  ~Scope() {
    if (kind_ != Kind::branch || has_extra_ || below_.first_child != nullptr) end();
  }

  /// True if `inner` is this scope or stands below it.
  [[nodiscard]] bool contains(const Scope* inner) const noexcept {
    while (inner != nullptr && inner != this) inner = inner->parent_;
    return inner != nullptr;
  }

  [[nodiscard]] Scope* parent() const noexcept { return parent_; }
  [[nodiscard]] Kind kind() const noexcept { return kind_; }
  /// When it ran last, by its loop's `clock_ms`: it has waited since.
  [[nodiscard]] std::uint32_t ran_ms() const noexcept { return ran_ms_; }
  void runs_at(std::uint32_t clock_ms) noexcept { ran_ms_ = clock_ms; }

  /// The scopes right below but branches, the latest first; nullptr: none, or no more.
  [[nodiscard]] Scope* first_below() noexcept;
  [[nodiscard]] Scope* next() const noexcept { return next_; }
  [[nodiscard]] Scope* previous() const noexcept { return previous_; }

  // For a scope without a parent that marks a place among others, for who goes through them:
  /// Behind all that stand below that one, of which there are some.
  void stand_last_below(Scope& parent) noexcept;
  /// In front of that one, which has a parent.
  void stand_before(Scope& sibling) noexcept;
  void stand_nowhere() noexcept;

  /// Moves the scope, with all that stands below it, below `parent`, which is none of those.
  void attach(Scope* parent) noexcept;

  /// For a branch, once.
  void stand_below(Scope* parent) noexcept { parent_ = parent; }

  /// The values of the task that the scope belongs to; nullptr if it has none.
  [[nodiscard]] const Locals* locals() const noexcept {
    const Scope* task = this;
    while (task != nullptr && task->is_helper()) task = task->parent_;
    return task != nullptr && task->has_extra_ ? task->own_locals() : nullptr;
  }
  /// Gives it these. False where no task stands above. Throws `std::bad_alloc`.
  bool set_locals(Locals&& locals);
  /// A task that begins: it has what runs on this thread now has, `by` being the scope of that.
  /// Throws `std::bad_alloc`.
  void inherit_locals(const Scope* by) {
    if (by == nullptr || by->locals() != nullptr) inherit_current_locals();
  }

 private:
  friend class Scheduler;

  /// In place of `below_.first_child`, for one that has values: the others need not pay for them.
  struct Extra;

  /// Stands for the task above it.
  [[nodiscard]] bool is_helper() const noexcept {
    return kind_ == Kind::group || kind_ == Kind::generator;
  }
  [[nodiscard]] Scope*& first_child() noexcept;
  [[nodiscard]] const Locals* own_locals() const noexcept;
  void inherit_current_locals();
  void end() noexcept;
  [[gnu::noinline]] void hand_over_children() noexcept;
  [[gnu::noinline]] void drop_locals() noexcept;
  void link() noexcept;
  void unlink() noexcept;
  /// Says whether what this is the scope of is doomed.
  void set_doomed(bool doomed) noexcept;
  static void add_doomed(Scope* from, std::uint32_t count) noexcept;

  Scope* parent_;
  union {
    Scope* first_child = nullptr;
    Extra* extra;  // if `has_extra_`
  } below_;
  Scope* next_ = nullptr;
  Scope* previous_ = nullptr;
  std::uint32_t doomed_count_ = 0;  // of the doomed from here down
  std::uint32_t ran_ms_ = 0;
  bool doomed_ = false;
  bool has_extra_ = false;
  Kind kind_;
};

/// Which scope runs on a loop now. Loop's thread, but for `interrupted`.
class Running {
 public:
  Running() noexcept = default;
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  /// Enters a scope for its own life: what owns the scope is not destroyed meanwhile.
  class Inside {
   public:
    Inside(Running& running, Scope* scope) noexcept
        : running_(running),
          scope_(std::exchange(running.scope_, scope)),
          outer_(std::exchange(running.outer_, this)) {}
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;
    ~Inside() {
      running_.scope_ = scope_;
      running_.outer_ = outer_;
    }

   private:
    friend class Running;

    Running& running_;
    Scope* scope_;  // that it was entered from, where something runs too
    Inside* outer_;
  };

  /// The same while what the scope belongs to is destroyed: it is there no more at the end, and so
  /// is nobody's who interrupts this thread.
  class Burial {
   public:
    Burial(Running& running, Scope& scope) noexcept
        : hidden_(running.burying_), inside_(running, &scope) {}

   private:
    /// Counted in an order that a handler of signals sees.
    class Hidden {
     public:
      explicit Hidden(std::atomic<int>& count) noexcept : count_(count) {
        add(1);
        std::atomic_signal_fence(std::memory_order_seq_cst);
      }
      Hidden(const Hidden&) = delete;
      Hidden& operator=(const Hidden&) = delete;
      ~Hidden() {
        std::atomic_signal_fence(std::memory_order_seq_cst);
        add(-1);
      }

     private:
      void add(int more) const noexcept {
        count_.store(count_.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
      }

      std::atomic<int>& count_;
    };

    Hidden hidden_;
    Inside inside_;
  };

  /// The owner of the coroutine that runs now, or nullptr outside of any.
  [[nodiscard]] Scope* scope() const noexcept { return scope_; }
  /// The same for a handler of signals that has interrupted the thread anywhere: nullptr also where
  /// the owner may be going.
  [[nodiscard]] Scope* interrupted() const noexcept {
    return burying_.load(std::memory_order_relaxed) == 0 ? scope_ : nullptr;
  }
  /// What runs goes on as part of another scope of the same owner, of one above or below it; or as
  /// that of another owner, or of none, where nothing else runs.
  void go_on_in(Scope* scope) noexcept { scope_ = scope; }
  /// Whether a coroutine or destructor of `scope`, or of what stands below it, is running now.
  [[nodiscard]] bool is_in(const Scope& scope) const noexcept;

 private:
  Scope* scope_ = nullptr;
  std::atomic<int> burying_ = 0;  // destructions under way, of what `scope_` may belong to
  Inside* outer_ = nullptr;       // a task started by a running one runs nested in it
};

}  // namespace weir::detail
