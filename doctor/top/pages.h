#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "../look/inspector_client.h"

namespace top {

struct Row {
  std::string text;
  bool is_bad = false;  // to be seen first: a loop that is stuck, a connection that is held up
};

/// A part of what is shown: a line of columns' names and the rows.
struct Section {
  std::string title;
  std::string header;
  std::vector<Row> rows;
};

/// Loops, tasks by place, oldest waits, connections, in this order. What is counted is shown as its
/// growth in a second since `before`, where there is one. No text has control characters.
std::vector<Section> sections_of(const look::Look& now, const look::Look* before);

/// The same facts for scripts, beside the members given.
look::Json as_json(const look::Look& look, look::Json::Members members);

}  // namespace top
