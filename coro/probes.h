#pragma once

/// Probes of SystemTap's kind (USDT) for bpftrace, perf and gdb, where the flight recorder notes as
/// well: `weir:resumed` and others, listed in docs/debugging.md. One `nop` each while nobody looks;
/// none where <sys/sdt.h> is missing (Debian: systemtap-sdt-dev).
#if __has_include(<sys/sdt.h>)
#include <sys/sdt.h>
#define WEIR_PROBE1(name, first) STAP_PROBE1(weir, name, first)
#define WEIR_PROBE2(name, first, second) STAP_PROBE2(weir, name, first, second)
#else
#define WEIR_PROBE1(name, first) static_cast<void>(first)
#define WEIR_PROBE2(name, first, second) (static_cast<void>(first), static_cast<void>(second))
#endif
