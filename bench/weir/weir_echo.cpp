// The example by another name, without what hardens the example's own code: what a connection costs
// is asked here, as it is of the servers beside it.
#include "../../examples/echo_server.cpp"
