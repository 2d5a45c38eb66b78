#pragma once

#include <string>
#include <vector>

namespace doctor {

/// Something that a kernel can do or cannot, found out by trying.
struct Capability {
  std::string name;
  bool works = false;
  std::string detail;    // why not, or what was seen; may be empty
  std::string used_for;  // what weir does with it
};

/// Tries everything on this kernel. Takes a few milliseconds; opens sockets on loopback.
std::vector<Capability> find_capabilities();

}  // namespace doctor
