#pragma once

#include <string>
#include <vector>

namespace doctor {

/// A limit of the process or the machine that a server meets.
struct Limit {
  std::string name;
  std::string value;
  bool enough = true;
  std::string matters_for;
  std::string raise_to;  // empty if it is enough
  std::string command;
};

std::vector<Limit> find_limits();

}  // namespace doctor
