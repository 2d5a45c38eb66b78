#pragma once

// Deterministic simulation of servers and their network, on top of weir.h. See docs/simulation.md.

#include <weir/io/sim/explore.h>
#include <weir/io/sim/hooks.h>
#include <weir/io/sim/world.h>
