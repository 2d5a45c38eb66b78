#pragma once

/// The version of weir that a program is compiled against. Within one minor version, up to 1.0,
/// programs need not be compiled anew.
#define WEIR_VERSION_MAJOR 0
#define WEIR_VERSION_MINOR 2
#define WEIR_VERSION_PATCH 0
