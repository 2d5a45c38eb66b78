#include "screen.h"

#include <weir/weir.h>

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cwchar>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <variant>

#include "pages.h"

// The names of its functions are macros, of which some are weir's too (`timeout`).
#define NCURSES_NOMACROS
#include <curses.h>

namespace top {
namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 5s;
constexpr int kLeastLines = 8;
constexpr int kLeastColumns = 40;
constexpr const char* kKeys =
    "q quit  l loops  t places  o oldest  c connections  a all  space pause";

/// The terminal in the hands of ncurses; restored at the end.
class Terminal {
 public:
  Terminal() : screen_(::newterm(nullptr, stdout, stdin)) {
    if (screen_ == nullptr) {
      const char* type = std::getenv("TERM");
      throw std::runtime_error(std::string("the terminal \"") + (type != nullptr ? type : "") +
                               "\" cannot be drawn on: use --once");
    }
    ::cbreak();
    ::noecho();
    ::nonl();
    ::curs_set(0);
    ::keypad(stdscr, TRUE);
    ::nodelay(stdscr, TRUE);
    ::set_escdelay(50);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal() {
    ::endwin();
    ::delscreen(screen_);
  }

  static void resize() {
    winsize size{};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0) {
      ::resizeterm(size.ws_row, size.ws_col);
    }
  }

 private:
  SCREEN* screen_;
};

/// As much of a text as so many columns take, in whole letters (UTF-8).
std::string clipped(const std::string& text, int columns) {
  std::mbstate_t state{};
  std::size_t at = 0;
  while (at < text.size()) {
    wchar_t letter = 0;
    std::size_t size = std::mbrtowc(&letter, text.data() + at, text.size() - at, &state);
    int width = 1;
    if (size == 0 || size > text.size() - at) {  // no letter in this locale: as it is
      state = {};
      size = 1;
    } else {
      width = std::max(0, ::wcwidth(letter));
    }
    if (width > columns) break;
    columns -= width;
    at += size;
  }
  return text.substr(0, at);
}

/// What is seen, and of what.
class View {
 public:
  explicit View(const Target& target) : target_(target) {}

  void looked(look::Look look) {
    trouble_.clear();
    if (is_paused_) return;
    before_ = std::exchange(now_, std::move(look));
    sections_ = sections_of(*now_, before_ ? &*before_ : nullptr);
  }
  void failed(std::string trouble) { trouble_ = std::move(trouble); }

  /// False: it is to end.
  bool press(int key) {
    static constexpr std::string_view kSections = "ltoc";
    const int page = std::max(1, LINES - 4);
    if (key == 'q' || key == 'Q') return false;
    if (key == ' ') is_paused_ = !is_paused_;
    if (key == 'a' || key == 27) select(-1);
    if (const auto at = kSections.find(static_cast<char>(key));
        key > 0 && key < 128 && at != std::string_view::npos) {
      select(static_cast<int>(at));
    }
    if (key == KEY_DOWN) scroll(1);
    if (key == KEY_UP) scroll(-1);
    if (key == KEY_NPAGE) scroll(page);
    if (key == KEY_PPAGE) scroll(-page);
    if (key == KEY_HOME) first_ = 0;
    return true;
  }

  void draw() {
    ::erase();
    if (LINES < kLeastLines || COLS < kLeastColumns) {
      put(0, "weir-top needs 40 x 8", A_BOLD);
    } else {
      put(0, "weir-top  " + target_.title, A_BOLD);
      put(1, now_ ? look::counts_of(*now_).text() : std::string("looking ..."), A_NORMAL);
      if (is_paused_) put(LINES - 1, "paused: space goes on", A_REVERSE);
      if (!is_paused_) put(LINES - 1, kKeys, A_DIM);
      if (!trouble_.empty()) put(LINES - 1, trouble_, A_REVERSE);
      draw_sections();
    }
    ::refresh();
  }

 private:
  void select(int section) {
    selected_ = section;
    first_ = 0;
  }
  void scroll(int lines) { first_ = std::max(0, first_ + lines); }

  static void put(int line, const std::string& text, attr_t attributes) {
    ::attr_set(attributes, 0, nullptr);
    ::mvaddstr(line, 0, clipped(text, COLS).c_str());
    ::attr_set(A_NORMAL, 0, nullptr);
  }

  /// One alone, or each with what it needs of the lines as long as there are some for all.
  void draw_sections() {
    const int end = LINES - 1;
    int line = 2;
    if (selected_ >= 0 && selected_ < static_cast<int>(sections_.size())) {
      draw_section(sections_[static_cast<std::size_t>(selected_)], line, end, true);
      return;
    }
    std::vector<int> rooms(sections_.size());
    bool have_all = false;
    for (int left = end - line; left > 0 && !have_all;) {
      have_all = true;
      for (std::size_t i = 0; i < rooms.size() && left > 0; ++i) {
        if (rooms[i] == static_cast<int>(sections_[i].rows.size()) + 2) continue;
        ++rooms[i];
        --left;
        have_all = false;
      }
    }
    for (std::size_t i = 0; i < rooms.size(); ++i) {
      line = draw_section(sections_[i], line, line + rooms[i], false);
    }
  }

  /// Gives the line behind it.
  int draw_section(const Section& section, int line, int end, bool scrolls) {
    const int all = static_cast<int>(section.rows.size());
    if (scrolls) first_ = std::clamp(first_, 0, std::max(0, all - (end - line - 2)));
    const int first = scrolls ? first_ : 0;
    if (line + 1 >= end) return end;
    put(line++, section.title + " (" + std::to_string(all) + ')', A_BOLD);
    std::string header = section.header;
    header.resize(std::max(header.size(), static_cast<std::size_t>(COLS)), ' ');
    put(line++, header, A_REVERSE);
    for (int i = first; i < all && line < end; ++i) {
      const Row& row = section.rows[static_cast<std::size_t>(i)];
      put(line++, row.text, row.is_bad ? A_BOLD : A_NORMAL);
    }
    return line;
  }

  const Target& target_;
  std::optional<look::Look> now_;
  std::optional<look::Look> before_;
  std::vector<Section> sections_;
  std::string trouble_;
  bool is_paused_ = false;
  int selected_ = -1;  // -1: all
  int first_ = 0;      // row that is shown
};

/// Looks again and again. Throws when the process has ended.
weir::Task<> keep_looking(const Target& target, std::chrono::milliseconds interval, View& view,
                          weir::Channel<int>& news) {
  std::vector<std::string> addresses = target.addresses;
  for (;;) {
    std::string trouble;
    try {
      auto look = look::look_at_any(addresses, kPatience);
      look::Look seen = co_await std::move(look);
      addresses = {seen.address};  // the others are not the inspector's
      view.looked(std::move(seen));
    } catch (const std::runtime_error& error) {
      trouble = error.what();
    }
    if (!trouble.empty()) {
      if (target.pid != 0 && !std::filesystem::exists("/proc/" + std::to_string(target.pid))) {
        throw std::runtime_error("process " + std::to_string(target.pid) + " has ended");
      }
      view.failed(std::move(trouble));
    }
    (void)news.try_send(0);
    co_await weir::sleep(interval);
  }
}

/// Draws until it is to end.
weir::Task<> keep_drawing(View& view, weir::Channel<int>& news) {
  weir::Signals ends(SIGINT, SIGTERM, SIGHUP);
  weir::Signals resized(SIGWINCH);
  for (;;) {
    view.draw();
    const auto what = co_await weir::when_any(weir::ready(STDIN_FILENO, POLLIN), resized.next(),
                                              ends.next(), news.receive());
    if (what.index() == 1) Terminal::resize();
    if (what.index() == 2) co_return;
    if (what.index() != 0) continue;
    if ((std::get<0>(what) & (POLLHUP | POLLERR)) != 0) co_return;
    for (int key = 0; (key = ::getch()) != ERR;) {
      if (!view.press(key)) co_return;
    }
  }
}

}  // namespace

weir::Task<> show(Target target, std::chrono::milliseconds interval) {
  View view(target);
  weir::Channel<int> news(1);
  const Terminal terminal;
  co_await weir::when_any(keep_looking(target, interval, view, news), keep_drawing(view, news));
}

}  // namespace top
