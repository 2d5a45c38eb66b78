#pragma once

#include <algorithm>
#include <cctype>
#include <charconv>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "parser.h"
#include "store.h"

namespace resp {

// ---- replies ------------------------------------------------------------------------------------

inline void add_simple(std::string& reply, std::string_view text) {
  reply.append("+").append(text).append("\r\n");
}
inline void add_number(std::string& reply, char kind, long long number) {
  char digits[24];
  const char* end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  reply.push_back(kind);
  reply.append(digits, static_cast<std::size_t>(end - digits)).append("\r\n");
}
inline void add_integer(std::string& reply, long long number) { add_number(reply, ':', number); }
inline void add_array(std::string& reply, std::size_t size) {
  add_number(reply, '*', static_cast<long long>(size));
}
inline void add_bulk(std::string& reply, std::string_view bytes) {
  add_number(reply, '$', static_cast<long long>(bytes.size()));
  reply.append(bytes).append("\r\n");
}
inline void add_nil(std::string& reply) { reply.append("$-1\r\n"); }
inline void add_error(std::string& reply, std::string_view text) {
  reply.append("-").append(text).append("\r\n");
}
/// What a client sent, fit to be shown in an error.
inline std::string shown(std::string_view text) {
  std::string result(text.substr(0, 64));
  for (char& c : result) {
    if (c < ' ' || c > '~') c = '?';
  }
  return result;
}

// ---- commands -----------------------------------------------------------------------------------

/// The commands and the keys they work on, shared by all loops: each command holds the mutex, which
/// is never held across a `co_await`.
class Database {
 public:
  using Command = Parser::Command;

  explicit Database(std::size_t most_bytes) : most_bytes_(most_bytes) {}

  /// Appends the reply.
  void execute(const Command& command, Time now, std::string& reply) {
    const auto found = table().find(upper(command[0].substr(0, 8)));
    if (found == table().end()) {
      return add_error(reply, "ERR unknown command '" + shown(command[0]) + "'");
    }
    const Spec& spec = found->second;
    const auto count = static_cast<int>(command.size());
    if (spec.arity >= 0 ? count != spec.arity : count < -spec.arity) {
      return add_error(
          reply, "ERR wrong number of arguments for '" + shown(lower(command[0])) + "' command");
    }
    const std::lock_guard lock(mutex_);
    now_ = now;
    store_.expire(now);
    ++executed_;
    if (spec.grows && store_.bytes() >= most_bytes_) {
      return add_error(reply, "OOM command not allowed when used memory > 'maxmemory'.");
    }
    (this->*spec.function)(command, reply);
  }

 private:
  struct Spec {
    void (Database::*function)(const Command&, std::string&);
    int arity;  // with the name; negative: so many or more
    bool grows = false;
  };

  static constexpr std::size_t kMostReply = 32 << 20;
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

  void ping(const Command& command, std::string& reply) {
    if (command.size() > 2) {
      add_error(reply, "ERR wrong number of arguments for 'ping' command");
    } else if (command.size() == 2) {
      add_bulk(reply, command[1]);
    } else {
      add_simple(reply, "PONG");
    }
  }

  void echo(const Command& command, std::string& reply) { add_bulk(reply, command[1]); }

  /// SET key value [NX] [EX seconds | PX milliseconds]
  void set(const Command& command, std::string& reply) {
    bool only_new = false;
    std::optional<Time> deadline;
    for (std::size_t i = 3; i < command.size(); ++i) {
      const std::string option = upper(command[i].substr(0, 3));
      const bool seconds = option == "EX";
      if (option == "NX") {
        only_new = true;
      } else if ((seconds || option == "PX") && i + 1 < command.size() && !deadline) {
        const auto count = integer(command[++i]);
        if (!count) return add_error(reply, kNoInteger);
        deadline = after(*count, seconds ? 1000 : 1);
        if (*count <= 0 || !deadline) {
          return add_error(reply, "ERR invalid expire time in 'set' command");
        }
      } else {
        return add_error(reply, "ERR syntax error");
      }
    }
    if (only_new && store_.find(command[1], now_) != nullptr) return add_nil(reply);
    Entry& entry = store_.put(command[1], std::string(command[2]));
    if (deadline) store_.set_deadline(command[1], entry, deadline);
    add_simple(reply, "OK");
  }

  void get(const Command& command, std::string& reply) {
    Entry* entry = store_.find(command[1], now_);
    if (entry == nullptr) return add_nil(reply);
    const auto* text = std::get_if<std::string>(&entry->value);
    if (text == nullptr) return add_error(reply, kWrongType);
    add_bulk(reply, *text);
  }

  void del(const Command& command, std::string& reply) {
    long long count = 0;
    for (std::size_t i = 1; i < command.size(); ++i) {
      count += store_.find(command[i], now_) != nullptr && store_.erase(command[i]) ? 1 : 0;
    }
    add_integer(reply, count);
  }

  void exists(const Command& command, std::string& reply) {
    long long count = 0;
    for (std::size_t i = 1; i < command.size(); ++i) {
      count += store_.find(command[i], now_) != nullptr ? 1 : 0;
    }
    add_integer(reply, count);
  }

  void incr(const Command& command, std::string& reply) {
    Entry* entry = store_.find(command[1], now_);
    if (entry == nullptr) entry = &store_.put(command[1], std::string("0"));
    auto* text = std::get_if<std::string>(&entry->value);
    if (text == nullptr) return add_error(reply, kWrongType);
    const auto number = integer(*text);
    if (!number) return add_error(reply, kNoInteger);
    if (*number == std::numeric_limits<long long>::max()) {
      return add_error(reply, "ERR increment or decrement would overflow");
    }
    store_.refund(text->size());
    *text = std::to_string(*number + 1);
    store_.charge(text->size());
    add_integer(reply, *number + 1);
  }

  void mget(const Command& command, std::string& reply) {
    const std::size_t begin = reply.size();
    add_array(reply, command.size() - 1);
    for (std::size_t i = 1; i < command.size(); ++i) {
      Entry* entry = store_.find(command[i], now_);
      const auto* text = entry == nullptr ? nullptr : std::get_if<std::string>(&entry->value);
      if (text == nullptr) {
        add_nil(reply);
      } else {
        add_bulk(reply, *text);
        if (too_long(reply, begin)) return;
      }
    }
  }

  void mset(const Command& command, std::string& reply) {
    if (command.size() % 2 == 0) {
      return add_error(reply, "ERR wrong number of arguments for 'mset' command");
    }
    for (std::size_t i = 1; i < command.size(); i += 2) {
      store_.put(command[i], std::string(command[i + 1]));
    }
    add_simple(reply, "OK");
  }

  void lpush(const Command& command, std::string& reply) {
    Entry* entry = store_.find(command[1], now_);
    if (entry == nullptr) entry = &store_.put(command[1], List());
    auto* list = std::get_if<List>(&entry->value);
    if (list == nullptr) return add_error(reply, kWrongType);
    for (std::size_t i = 2; i < command.size(); ++i) {
      list->emplace_front(command[i]);
      store_.charge(command[i].size() + Store::kPerItem);
    }
    add_integer(reply, static_cast<long long>(list->size()));
  }

  void rpop(const Command& command, std::string& reply) {
    Entry* entry = store_.find(command[1], now_);
    if (entry == nullptr) return add_nil(reply);
    auto* list = std::get_if<List>(&entry->value);
    if (list == nullptr) return add_error(reply, kWrongType);
    add_bulk(reply, list->back());
    store_.refund(list->back().size() + Store::kPerItem);
    list->pop_back();
    if (list->empty()) store_.erase(command[1]);
  }

  /// Places count from the head, negative ones from the end; both ends belong to the range.
  void lrange(const Command& command, std::string& reply) {
    const auto first = integer(command[2]);
    const auto last = integer(command[3]);
    if (!first || !last) return add_error(reply, kNoInteger);
    Entry* entry = store_.find(command[1], now_);
    if (entry == nullptr) return add_array(reply, 0);
    const auto* list = std::get_if<List>(&entry->value);
    if (list == nullptr) return add_error(reply, kWrongType);
    const auto size = static_cast<long long>(list->size());
    const long long begin = std::max(*first < 0 ? *first + size : *first, 0LL);
    const long long end = std::min(*last < 0 ? *last + size : *last, size - 1);
    if (begin > end) return add_array(reply, 0);
    const std::size_t start = reply.size();
    add_array(reply, static_cast<std::size_t>(end - begin + 1));
    for (long long i = begin; i <= end; ++i) {
      add_bulk(reply, (*list)[static_cast<std::size_t>(i)]);
      if (too_long(reply, start)) return;
    }
  }

  void expire(const Command& command, std::string& reply) {
    const auto seconds = integer(command[2]);
    if (!seconds) return add_error(reply, kNoInteger);
    const auto deadline = after(*seconds, 1000);
    if (!deadline) return add_error(reply, "ERR invalid expire time in 'expire' command");
    Entry* entry = store_.find(command[1], now_);
    if (entry != nullptr) store_.set_deadline(command[1], *entry, deadline);
    add_integer(reply, entry != nullptr ? 1 : 0);
  }

  /// In seconds; -1: for ever, -2: no such key.
  void ttl(const Command& command, std::string& reply) {
    Entry* entry = store_.find(command[1], now_);
    if (entry == nullptr) return add_integer(reply, -2);
    if (!entry->deadline) return add_integer(reply, -1);
    add_integer(reply, std::chrono::round<std::chrono::seconds>(*entry->deadline - now_).count());
  }

  void info(const Command&, std::string& reply) {
    add_bulk(reply, "# Server\r\nredis_version:7.0.0\r\nserver_name:weir resp_server\r\n" +
                        std::string("# Memory\r\nused_memory:") + std::to_string(store_.bytes()) +
                        "\r\nmaxmemory:" + std::to_string(most_bytes_) +
                        "\r\n# Stats\r\ntotal_commands_processed:" + std::to_string(executed_) +
                        "\r\n# Keyspace\r\ndb0:keys=" + std::to_string(store_.size()) + "\r\n");
  }

  void config(const Command& command, std::string& reply) {
    if (upper(command[1].substr(0, 4)) != "GET" || command.size() < 3) {
      return add_error(reply, "ERR only CONFIG GET is known");
    }
    const std::map<std::string, std::string> values = {
        {"appendonly", "no"}, {"maxmemory", std::to_string(most_bytes_)}, {"save", ""}};
    std::map<std::string, std::string> asked;
    for (std::size_t i = 2; i < command.size(); ++i) {
      for (const auto& [name, value] : values) {
        if (command[i] == "*" || lower(command[i]) == name) asked[name] = value;
      }
    }
    add_array(reply, asked.size() * 2);
    for (const auto& [name, value] : asked) {
      add_bulk(reply, name);
      add_bulk(reply, value);
    }
  }

  /// COMMAND and COMMAND COUNT; for COMMAND DOCS and others, which clients can do without, nothing.
  void describe(const Command& command, std::string& reply) {
    if (command.size() > 1) {
      if (upper(command[1].substr(0, 6)) == "COUNT") {
        return add_integer(reply, static_cast<long long>(table().size()));
      }
      return add_array(reply, 0);
    }
    add_array(reply, table().size());
    for (const auto& [name, spec] : table()) {
      add_array(reply, 6);
      add_bulk(reply, lower(name));
      add_integer(reply, spec.arity);
      add_array(reply, 1);
      add_simple(reply, spec.grows ? "write" : "fast");
      for (int i = 0; i < 3; ++i) add_integer(reply, 0);
    }
  }

  static bool too_long(std::string& reply, std::size_t begin) {
    if (reply.size() - begin <= kMostReply) return false;
    reply.resize(begin);
    add_error(reply, "ERR the reply would be too long");
    return true;
  }

  const std::size_t most_bytes_;
  std::mutex mutex_;
  Store store_;
  Time now_;
  unsigned long long executed_ = 0;
};

}  // namespace resp
