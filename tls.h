#pragma once

/// TLS for weir's connections: link `weir::tls` as well.

#include <weir/net/tls/context.h>
#include <weir/net/tls/start_tls.h>
#include <weir/weir.h>
