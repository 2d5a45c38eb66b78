#include <weir/io/sim/hooks.h>
#include <weir/io/sim/run.h>

namespace weir::sim {

void sometimes(bool condition, std::string_view name) {
  detail::Coverage* coverage = detail::current_coverage;
  if (coverage == nullptr) return;
  auto found = coverage->conditions.find(name);
  if (found == coverage->conditions.end()) {
    found = coverage->conditions.emplace(name, false).first;
  }
  if (!condition || found->second) return;
  found->second = true;
  reached(name);
}

void reached(std::string_view name) {
  detail::Coverage* coverage = detail::current_coverage;
  if (coverage != nullptr && coverage->reached.find(name) == coverage->reached.end()) {
    coverage->reached.emplace(name);
  }
}

bool buggify(double probability) {
  World::Impl* world = World::Impl::current;
  if (world == nullptr || world->hosts.empty()) return false;
  return world->network.chance.buggify(probability,
                                       world->active != nullptr ? world->active->index : 0);
}

}  // namespace weir::sim
