// The same with TLS, and a program of its own: the one without links nothing of it.
#define WEIR_EXAMPLES_WITH_TLS
#include "../../examples/echo_server.cpp"
