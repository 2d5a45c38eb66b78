#include <weir/net/stream/shared_bytes.h>

#include <doctest/doctest.h>

#include <string>
#include <thread>
#include <utility>

#include "check.h"

using namespace weir;
using namespace weir::schedules;

TEST_CASE("the last copy of shared bytes frees them, on whichever thread it goes") {
  check("shared bytes", [] {
    SharedBytes bytes(std::string(100, 'x'));
    std::thread thread([copy = bytes]() mutable {
      const SharedBytes another = copy;
      copy = {};
      require(another.view().back() == 'x', "the bytes are there");
    });
    require(bytes.view().front() == 'x', "the bytes are there");
    bytes = {};
    thread.join();
  });
  check("shared bytes, three threads", [] {
    SharedBytes bytes(std::string(100, 'x'));
    const auto look = [](SharedBytes copy) {
      require(copy.view().back() == 'x', "the bytes are there");
    };
    std::thread one(look, bytes);
    std::thread other(look, std::move(bytes));
    one.join();
    other.join();
  });
}
