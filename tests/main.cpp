#define DOCTEST_CONFIG_IMPLEMENT
#include <weir/coro/frame_allocator.h>

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <string>

#include "support/process.h"

namespace {

/// Far above what any case takes, also under a sanitizer on a busy machine, and above the patience
/// of what waits in it (kPatience), unless WEIR_CASE_SECONDS says less: for what is broken on
/// purpose (tests/mutants).
unsigned seconds_for_one_case() {
  const char* text = std::getenv("WEIR_CASE_SECONDS");
  return text != nullptr ? static_cast<unsigned>(std::strtoul(text, nullptr, 10)) : 400;
}

const char* volatile running_case = "";

/// A case that hangs ends the process with a message, before CTest kills it without one.
void case_hangs(int) noexcept {
  const auto say = [](const char* text) {
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text, std::strlen(text));
  };
  say("\nweir_tests: no end in sight, given up in test case: ");
  say(running_case);
  say("\n");
  ::_exit(3);
}

/// Guards each test case: it must end, and leave behind neither descriptors nor frames.
class Guard final : public doctest::IReporter {
 public:
  explicit Guard(const doctest::ContextOptions&) {}

  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats& stats) override {
    // The cases were counted before they came to us; the other reporters come after.
    const_cast<doctest::TestRunStats&>(stats).numTestCasesFailed += leaking_cases_;
  }
  void test_case_start(const doctest::TestCaseData& data) override {
    case_ = &data;
    running_case = data.m_name;
    descriptors_ = weir::test::open_descriptors();
    frames_ = weir::detail::live_frames();
    ::alarm(seconds_for_one_case());
  }
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats& stats) override {
    ::alarm(0);
    const std::string left = what_is_left();
    if (left.empty()) return;
    std::printf("%s:%u: ERROR: test case \"%s\" leaves behind:%s\n", case_->m_file.c_str(),
                case_->m_line, case_->m_name, left.c_str());
    if (stats.testCaseSuccess) ++leaking_cases_;
  }
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}

 private:
  std::string what_is_left() const {
    std::string text;
    const std::int64_t frames = weir::detail::live_frames();
    if (frames != frames_) text += " " + std::to_string(frames - frames_) + " frames";
    const auto descriptors = weir::test::open_descriptors();
    for (const auto& [fd, target] : descriptors) {
      if (!descriptors_.contains(fd)) text += " descriptor " + std::to_string(fd) + "=" + target;
    }
    for (const auto& [fd, target] : descriptors_) {
      if (!descriptors.contains(fd)) {
        text += " a hole where descriptor " + std::to_string(fd) + "=" + target + " was";
      }
    }
    return text;
  }

  const doctest::TestCaseData* case_ = nullptr;
  std::map<int, std::string> descriptors_;
  std::int64_t frames_ = 0;
  unsigned leaking_cases_ = 0;
};

REGISTER_LISTENER("guard", 1, Guard);

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::signal(SIGPIPE, SIG_DFL);  // whatever started us may ignore it
  std::signal(SIGALRM, case_hangs);
  ::tzset();  // else the log's thread reads that file while some case counts descriptors
  rlimit descriptors{};
  ::getrlimit(RLIMIT_NOFILE, &descriptors);
  descriptors.rlim_cur = descriptors.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &descriptors);
  doctest::Context context;
  context.applyCommandLine(argc, argv);
  return context.run();
}
