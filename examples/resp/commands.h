#pragma once

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstddef>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "parser.h"
#include "reply.h"
#include "store.h"

namespace resp {

/// What a client sent, fit to be shown in an error.
inline std::string shown(std::string_view text) {
  std::string result(text.substr(0, 64));
  for (char& c : result) {
    if (c < ' ' || c > '~') c = '?';
  }
  return result;
}

/// The commands and the keys they work on, shared by all loops: each command holds the mutex, which
/// is never held across a `co_await`.
class Database {
 public:
  using Command = Parser::Command;

  explicit Database(std::size_t most_bytes) : most_bytes_(most_bytes) {}

  /// Appends the reply, all of which must go before the next command.
  void execute(const Command& command, Time now, Reply& reply) {
    const auto found = table().find(upper(command[0].substr(0, 8)));
    if (found == table().end()) {
      return reply.add_error("ERR unknown command '" + shown(command[0]) + "'");
    }
    const Spec& spec = found->second;
    const auto count = static_cast<int>(command.size());
    if (spec.arity >= 0 ? count != spec.arity : count < -spec.arity) {
      return reply.add_error("ERR wrong number of arguments for '" + shown(lower(command[0])) +
                             "' command");
    }
    const std::lock_guard lock(mutex_);
    now_ = now;
    store_.expire(now);
    ++executed_;
    if (spec.grows && store_.bytes() >= most_bytes_) {
      return reply.add_error("OOM command not allowed when used memory > 'maxmemory'.");
    }
    (this->*spec.function)(command, reply);
  }

 private:
  struct Spec {
    void (Database::*function)(const Command&, Reply&);
    int arity;  // with the name; negative: so many or more
    bool grows = false;
  };

  static constexpr long long kMostItems = 64 << 10;  // of one reply: an item is a pointer there
  static constexpr const char* kWrongType =
      "WRONGTYPE Operation against a key holding the wrong kind of value";
  static constexpr const char* kNoInteger = "ERR value is not an integer or out of range";

  static const std::map<std::string, Spec, std::less<>>& table() {
    using D = Database;
    static const std::map<std::string, Spec, std::less<>> commands = {
        {"PING", {&D::ping, -1}},        {"ECHO", {&D::echo, 2}},
        {"SET", {&D::set, -3, true}},    {"GET", {&D::get, 2}},
        {"DEL", {&D::del, -2}},          {"EXISTS", {&D::exists, -2}},
        {"INCR", {&D::incr, 2, true}},   {"MGET", {&D::mget, -2}},
        {"MSET", {&D::mset, -3, true}},  {"LPUSH", {&D::lpush, -3, true}},
        {"RPOP", {&D::rpop, 2}},         {"LRANGE", {&D::lrange, 4}},
        {"EXPIRE", {&D::expire, 3}},     {"TTL", {&D::ttl, 2}},
        {"INFO", {&D::info, -1}},        {"CONFIG", {&D::config, -2}},
        {"COMMAND", {&D::describe, -1}},
    };
    return commands;
  }

  static std::string upper(std::string_view text) {
    std::string result(text);
    for (char& c : result) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return result;
  }
  static std::string lower(std::string_view text) {
    std::string result(text);
    for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return result;
  }
  static std::optional<long long> integer(std::string_view text) {
    long long number = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc() || stop != end) return std::nullopt;
    return number;
  }
  /// The time so many units of milliseconds from now, kept where the clock can count.
  [[nodiscard]] std::optional<Time> after(long long count, long long unit) const {
    constexpr long long kMost = 100LL * 365 * 24 * 3600 * 1000;  // a hundred years
    if (count > kMost / unit || count < -kMost / unit) return std::nullopt;
    return now_ + std::chrono::milliseconds(count * unit);
  }

  void ping(const Command& command, Reply& reply) {
    if (command.size() > 2) {
      reply.add_error("ERR wrong number of arguments for 'ping' command");
    } else if (command.size() == 2) {
      reply.add_bulk(command[1]);
    } else {
      reply.add_simple("PONG");
    }
  }

  void echo(const Command& command, Reply& reply) { reply.add_bulk(command[1]); }

  /// SET key value [NX] [EX seconds | PX milliseconds]
  void set(const Command& command, Reply& reply) {
    bool only_new = false;
    std::optional<Time> deadline;
    for (std::size_t i = 3; i < command.size(); ++i) {
      const std::string option = upper(command[i].substr(0, 3));
      const bool seconds = option == "EX";
      if (option == "NX") {
        only_new = true;
      } else if ((seconds || option == "PX") && i + 1 < command.size() && !deadline) {
        const auto count = integer(command[++i]);
        if (!count) return reply.add_error(kNoInteger);
        deadline = after(*count, seconds ? 1000 : 1);
        if (*count <= 0 || !deadline) {
          return reply.add_error("ERR invalid expire time in 'set' command");
        }
      } else {
        return reply.add_error("ERR syntax error");
      }
    }
    if (only_new && store_.find(command[1], now_) != nullptr) return reply.add_nil();
    Entry& entry = store_.put(command[1], store_.make_text(command[2]));
    if (deadline) store_.set_deadline(command[1], entry, deadline);
    reply.add_simple("OK");
  }

  void get(const Command& command, Reply& reply) {
    Entry* entry = store_.find(command[1], now_);
    if (entry == nullptr) return reply.add_nil();
    const auto* text = std::get_if<Text>(&entry->value);
    if (text == nullptr) return reply.add_error(kWrongType);
    reply.add_value(*text);
  }

  void del(const Command& command, Reply& reply) {
    long long count = 0;
    for (std::size_t i = 1; i < command.size(); ++i) {
      count += store_.find(command[i], now_) != nullptr && store_.erase(command[i]) ? 1 : 0;
    }
    reply.add_integer(count);
  }

  void exists(const Command& command, Reply& reply) {
    long long count = 0;
    for (std::size_t i = 1; i < command.size(); ++i) {
      count += store_.find(command[i], now_) != nullptr ? 1 : 0;
    }
    reply.add_integer(count);
  }

  void incr(const Command& command, Reply& reply) {
    Entry* entry = store_.find(command[1], now_);
    if (entry == nullptr) entry = &store_.put(command[1], store_.make_text("0"));
    auto* text = std::get_if<Text>(&entry->value);
    if (text == nullptr) return reply.add_error(kWrongType);
    const auto number = integer(**text);
    if (!number) return reply.add_error(kNoInteger);
    if (*number == std::numeric_limits<long long>::max()) {
      return reply.add_error("ERR increment or decrement would overflow");
    }
    *text = store_.make_text(std::to_string(*number + 1));
    reply.add_integer(*number + 1);
  }

  void mget(const Command& command, Reply& reply) {
    reply.add_array(command.size() - 1);
    for (std::size_t i = 1; i < command.size(); ++i) {
      const Entry* entry = store_.find(command[i], now_);
      const auto* text = entry == nullptr ? nullptr : std::get_if<Text>(&entry->value);
      reply.add_value(text == nullptr ? nullptr : *text);
    }
  }

  void mset(const Command& command, Reply& reply) {
    if (command.size() % 2 == 0) {
      return reply.add_error("ERR wrong number of arguments for 'mset' command");
    }
    for (std::size_t i = 1; i < command.size(); i += 2) {
      store_.put(command[i], store_.make_text(command[i + 1]));
    }
    reply.add_simple("OK");
  }

  void lpush(const Command& command, Reply& reply) {
    Entry* entry = store_.find(command[1], now_);
    if (entry == nullptr) entry = &store_.put(command[1], List());
    auto* list = std::get_if<List>(&entry->value);
    if (list == nullptr) return reply.add_error(kWrongType);
    for (std::size_t i = 2; i < command.size(); ++i) store_.push_front(*list, command[i]);
    reply.add_integer(static_cast<long long>(list->size()));
  }

  void rpop(const Command& command, Reply& reply) {
    Entry* entry = store_.find(command[1], now_);
    if (entry == nullptr) return reply.add_nil();
    auto* list = std::get_if<List>(&entry->value);
    if (list == nullptr) return reply.add_error(kWrongType);
    reply.add_value(list->back());
    store_.pop_back(*list);
    if (list->empty()) store_.erase(command[1]);
  }

  /// Places count from the head, negative ones from the end; both ends belong to the range.
  void lrange(const Command& command, Reply& reply) {
    const auto first = integer(command[2]);
    const auto last = integer(command[3]);
    if (!first || !last) return reply.add_error(kNoInteger);
    Entry* entry = store_.find(command[1], now_);
    if (entry == nullptr) return reply.add_array(0);
    const auto* list = std::get_if<List>(&entry->value);
    if (list == nullptr) return reply.add_error(kWrongType);
    const auto size = static_cast<long long>(list->size());
    const long long begin = std::max(*first < 0 ? *first + size : *first, 0LL);
    const long long end = std::min(*last < 0 ? *last + size : *last, size - 1);
    if (begin > end) return reply.add_array(0);
    if (end - begin >= kMostItems) return reply.add_error("ERR the reply would be too long");
    reply.add_array(static_cast<std::size_t>(end - begin + 1));
    for (long long i = begin; i <= end; ++i) {
      reply.add_value((*list)[static_cast<std::size_t>(i)]);
    }
  }

  void expire(const Command& command, Reply& reply) {
    const auto seconds = integer(command[2]);
    if (!seconds) return reply.add_error(kNoInteger);
    const auto deadline = after(*seconds, 1000);
    if (!deadline) return reply.add_error("ERR invalid expire time in 'expire' command");
    Entry* entry = store_.find(command[1], now_);
    if (entry != nullptr) store_.set_deadline(command[1], *entry, deadline);
    reply.add_integer(entry != nullptr ? 1 : 0);
  }

  /// In seconds; -1: for ever, -2: no such key.
  void ttl(const Command& command, Reply& reply) {
    Entry* entry = store_.find(command[1], now_);
    if (entry == nullptr) return reply.add_integer(-2);
    if (!entry->deadline) return reply.add_integer(-1);
    reply.add_integer(std::chrono::round<std::chrono::seconds>(*entry->deadline - now_).count());
  }

  void info(const Command&, Reply& reply) {
    reply.add_bulk("# Server\r\nredis_version:7.0.0\r\nserver_name:weir resp_server\r\n" +
                   std::string("# Memory\r\nused_memory:") + std::to_string(store_.bytes()) +
                   "\r\nmaxmemory:" + std::to_string(most_bytes_) +
                   "\r\n# Stats\r\ntotal_commands_processed:" + std::to_string(executed_) +
                   "\r\n# Keyspace\r\ndb0:keys=" + std::to_string(store_.size()) + "\r\n");
  }

  void config(const Command& command, Reply& reply) {
    if (upper(command[1].substr(0, 4)) != "GET" || command.size() < 3) {
      return reply.add_error("ERR only CONFIG GET is known");
    }
    const std::map<std::string, std::string> values = {
        {"appendonly", "no"}, {"maxmemory", std::to_string(most_bytes_)}, {"save", ""}};
    std::map<std::string, std::string> asked;
    for (std::size_t i = 2; i < command.size(); ++i) {
      for (const auto& [name, value] : values) {
        if (command[i] == "*" || lower(command[i]) == name) asked[name] = value;
      }
    }
    reply.add_array(asked.size() * 2);
    for (const auto& [name, value] : asked) {
      reply.add_bulk(name);
      reply.add_bulk(value);
    }
  }

  /// COMMAND and COMMAND COUNT; for COMMAND DOCS and others, which clients can do without, nothing.
  void describe(const Command& command, Reply& reply) {
    if (command.size() > 1) {
      if (upper(command[1].substr(0, 6)) == "COUNT") {
        return reply.add_integer(static_cast<long long>(table().size()));
      }
      return reply.add_array(0);
    }
    reply.add_array(table().size());
    for (const auto& [name, spec] : table()) {
      reply.add_array(6);
      reply.add_bulk(lower(name));
      reply.add_integer(spec.arity);
      reply.add_array(1);
      reply.add_simple(spec.grows ? "write" : "fast");
      for (int i = 0; i < 3; ++i) reply.add_integer(0);
    }
  }

  const std::size_t most_bytes_;
  std::mutex mutex_;
  Store store_;
  Time now_;
  unsigned long long executed_ = 0;
};

}  // namespace resp
