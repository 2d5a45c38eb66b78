#pragma once

#include <string_view>

// What code under test tells the simulation that runs it. Outside of one these do nothing, at the
// price of a look at a variable of the thread; so they may stand in code that is shipped.
namespace weir::sim {

/// A state that a good exploration gets to: `explore` fails if the condition was looked at and held
/// in none of its worlds, for then its scenario or its faults do less than is believed. Counted
/// where `explore` runs on this thread, in tasks and in the scenario alike; elsewhere nothing
/// happens. Equal names count as one. Throws nothing but `std::bad_alloc`.
void sometimes(bool condition, std::string_view name);

/// A place that was got to: `explore` fails for those names of `ExploreOptions::expect` that no
/// world has reached. A `sometimes` that held has reached its name too.
void reached(std::string_view name);

/// True with this probability (0 to 1), by the seed of the world whose task, or function of
/// `World::at`, calls it; false wherever no world runs. For what a program may do but rarely does:
/// a small buffer, an early timeout, a cache that is empty (FoundationDB calls it BUGGIFY). A hit
/// is in the world's history and trace, and shrinking takes it away if it may.
[[nodiscard]] bool buggify(double probability);

}  // namespace weir::sim
