#include <weir/io/sim/faults.h>

namespace weir::sim {

using namespace std::chrono_literals;

const char* name_of(Fault fault) noexcept {
  switch (fault) {
    case Fault::short_receive:
      return "short receive";
    case Fault::short_send:
      return "short send";
    case Fault::late_completion:
      return "late completion";
    case Fault::reset:
      return "reset";
    case Fault::connection_refused:
      return "connection refused";
    case Fault::connection_lost:
      return "connection lost";
    case Fault::connection_aborted:
      return "connection aborted";
    case Fault::no_descriptor:
      return "no descriptor";
    case Fault::system_full:
      return "system full";
    case Fault::no_buffers:
      return "no buffers";
    case Fault::no_memory:
      return "no memory";
    case Fault::interrupted:
      return "interrupted";
    case Fault::queue_overflow:
      return "queue overflow";
    case Fault::lost_cancel:
      return "lost cancel";
  }
  return "";
}

double Faults::probability(Fault fault) const noexcept {
  switch (fault) {
    case Fault::short_receive:
      return short_receive;
    case Fault::short_send:
      return short_send;
    case Fault::late_completion:
      return late_completion;
    case Fault::reset:
      return reset;
    case Fault::connection_refused:
      return connection_refused;
    case Fault::connection_lost:
      return connection_lost;
    case Fault::connection_aborted:
      return connection_aborted;
    case Fault::no_descriptor:
      return no_descriptor;
    case Fault::system_full:
      return system_full;
    case Fault::no_buffers:
      return no_buffers;
    case Fault::no_memory:
      return no_memory;
    case Fault::interrupted:
      return interrupted;
    case Fault::queue_overflow:
      return queue_overflow;
    case Fault::lost_cancel:
      return lost_cancel;
  }
  return 0;
}

Faults Faults::mild() noexcept {
  Faults faults;
  faults.latency = 200us;
  faults.jitter = 500us;
  faults.loss = 0.002;
  faults.short_receive = 0.1;
  faults.short_send = 0.1;
  faults.late_completion = 0.1;
  faults.lateness = 2ms;
  faults.no_buffers = 0.01;
  faults.interrupted = 0.01;
  faults.queue_overflow = 0.02;
  faults.lost_cancel = 0.1;
  return faults;
}

Faults Faults::harsh() noexcept {
  Faults faults;
  faults.latency = 500us;
  faults.jitter = 5ms;
  faults.bandwidth = 10'000'000;
  faults.loss = 0.01;
  faults.short_receive = 0.3;
  faults.short_send = 0.3;
  faults.late_completion = 0.3;
  faults.lateness = 20ms;
  faults.reset = 0.002;
  faults.connection_refused = 0.05;
  faults.connection_lost = 0.01;
  faults.connection_aborted = 0.05;
  faults.no_descriptor = 0.02;
  faults.system_full = 0.01;
  faults.no_buffers = 0.05;
  faults.no_memory = 0.001;
  faults.interrupted = 0.03;
  faults.queue_overflow = 0.05;
  faults.lost_cancel = 0.3;
  return faults;
}

}  // namespace weir::sim
