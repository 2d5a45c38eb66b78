// The example against its promises; left out where the examples are not built.
#ifdef WEIR_EXAMPLES_DIR
#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

#include "../support/child.h"

using namespace weir::test;

namespace {

const std::string kProgram = WEIR_EXAMPLES_DIR "/sim_register";

}  // namespace

TEST_CASE("the register of the examples holds in 300 worlds") {
  Child child(kProgram, {"--seeds", "300"});
  CHECK(child.read_all() == "300 seeds, 0 failed\n");
  CHECK(child.wait() == 0);
}

TEST_CASE("the planted bug of the register is found within 1,000 seeds") {
  ::setenv("WEIR_SIM_SHRINK", "300", 1);  // NOLINT(concurrency-mt-unsafe): however slow it is
  Child child(kProgram, {"--seeds", "1000", "--bug"});
  ::unsetenv("WEIR_SIM_SHRINK");  // NOLINT(concurrency-mt-unsafe)
  const std::string text = child.read_all();
  CHECK(child.wait() == 1);
  CHECK(text.find("1 failed") != std::string::npos);
  CHECK(text.find("a reader got") != std::string::npos);
  CHECK(text.find("WEIR_SIM_SEED=") != std::string::npos);
  const std::string left = " faults are left:";
  const auto at = text.find(left);
  REQUIRE(at != std::string::npos);
  const auto number = text.rfind(' ', at - 1) + 1;
  CHECK(at - number == 1);  // below ten
}
#endif
