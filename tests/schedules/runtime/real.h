#pragma once

#include <pthread.h>

#include <cstddef>
#include <ctime>

namespace weir::schedules {

/// What the runtime stands in front of.
struct Real {
  int (*create)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  int (*join)(pthread_t, void**);
  int (*detach)(pthread_t);
  int (*lock)(pthread_mutex_t*);
  int (*try_lock)(pthread_mutex_t*);
  int (*unlock)(pthread_mutex_t*);
  int (*wait)(pthread_cond_t*, pthread_mutex_t*);
  int (*timed_wait)(pthread_cond_t*, pthread_mutex_t*, const timespec*);
  int (*clock_wait)(pthread_cond_t*, pthread_mutex_t*, clockid_t, const timespec*);
  int (*notify_one)(pthread_cond_t*);
  int (*notify_all)(pthread_cond_t*);
  int (*begin_once)(void*);
  void (*end_once)(void*);
  void (*abort_once)(void*);
  long (*syscall)(long, ...);
  void (*free)(void*);
};

const Real& real() noexcept;

}  // namespace weir::schedules
