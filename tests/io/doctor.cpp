#include <doctest/doctest.h>
#include <unistd.h>

#include <string>

#include "../support/process.h"
#include "child.h"

using namespace weir::test;

namespace {

const char* const kDoctor = "../../doctor/weir-doctor";

bool is_built() {
  if (::access((std::string(WEIR_TEST_PROGRAMS_DIR) + "/" + kDoctor).c_str(), X_OK) == 0) {
    return true;
  }
  MESSAGE("skipped: weir-doctor is not built");
  return false;
}

bool says(const Ended& ended, const char* text) {
  return ended.output.find(text) != std::string::npos;
}

}  // namespace

TEST_CASE(
    "weir-doctor says which engine is chosen, what the kernel can do, and which limits hold") {
  if (!is_built()) return;
  const Environment wish("WEIR_ENGINE", "epoll");
  const Ended text = run_child(kDoctor, {});
  INFO(text.output);
  CHECK(text.status == 0);
  for (const char* part : {"kernel    Linux ", "engine    epoll: WEIR_ENGINE asks for it\n",
                           "multishot receive", "epoll_pwait2", "RLIMIT_NOFILE", "somaxconn"}) {
    CHECK(says(text, part));
  }
  const Ended json = run_child(kDoctor, {"--json"});
  INFO(json.output);
  CHECK(json.status == 0);
  for (const char* part :
       {R"("engine": {"name": "epoll", "why": "WEIR_ENGINE asks for it"})", R"("capabilities": [)",
        R"({"name": "multishot accept", "works": )", R"("limits": [)"}) {
    CHECK(says(json, part));
  }
}

TEST_CASE("weir-doctor refuses what it does not understand") {
  if (!is_built()) return;
  CHECK(run_child(kDoctor, {"--xml"}).status == 2);
  const Environment wish("WEIR_ENGINE", "kqueue");
  const Ended none = run_child(kDoctor, {});
  CHECK(none.status == 1);
  CHECK(says(none, "WEIR_ENGINE is \"kqueue\""));
}
