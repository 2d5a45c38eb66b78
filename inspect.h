#pragma once

/// A look inside of a running program: `weir::Inspector`.

#include <weir/net/inspector.h>
