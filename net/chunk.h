#pragma once

#include <weir/net/stream/chunk.h>
