#pragma once

// Deterministic simulation of servers and their network, on top of weir.h. See docs/simulation.md.

#include <weir/io/sim/world.h>
