#pragma once

// Everything that weir offers. Each of these headers also stands alone.

#include <weir/core/event_loop.h>
#include <weir/core/log.h>
#include <weir/core/loop_thread.h>
#include <weir/core/on.h>
#include <weir/core/signal.h>
#include <weir/core/sleep.h>
#include <weir/core/version.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/async_generator.h>
#include <weir/coro/channel.h>
#include <weir/coro/event.h>
#include <weir/coro/mutex.h>
#include <weir/coro/semaphore.h>
#include <weir/coro/task.h>
#include <weir/coro/task_group.h>
#include <weir/coro/timeout.h>
#include <weir/coro/when_all.h>
#include <weir/coro/when_any.h>
#include <weir/io/sim/world.h>
#include <weir/net/acceptor.h>
#include <weir/net/chunk.h>
#include <weir/net/connector.h>
#include <weir/net/resolver.h>
#include <weir/net/socket.h>
#include <weir/net/socket_address.h>
#include <weir/net/tcp_client.h>
#include <weir/net/tcp_connection.h>
#include <weir/net/tcp_server.h>
