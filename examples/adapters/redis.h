#pragma once

#include <hiredis/async.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "watched.h"

/// hiredis' asynchronous interface on weir's loop.
namespace adapters {

struct RedisReply {
  int type = REDIS_REPLY_NIL;  // REDIS_REPLY_STRING, REDIS_REPLY_INTEGER …
  long long integer = 0;
  std::string text = {};
  std::vector<RedisReply> elements = {};
};

/// One connection, with any number of commands under way. Belongs to one loop; outlives them. When
/// it breaks all that waits ends in a `std::runtime_error`; make another then.
class Redis {
 public:
  /// What comes to a subscription, in order: closed with the connection, or once it is full.
  using Messages = std::shared_ptr<weir::Channel<std::string>>;

  /// Begins to connect to "unix:/path" or "1.2.3.4:6379".
  explicit Redis(const std::string& address) {
    const std::string host = address.substr(0, address.rfind(':'));
    const std::string rest = address.substr(host.size() + 1);
    context_ = host == "unix" ? redisAsyncConnectUnix(rest.c_str())
                              : redisAsyncConnect(host.c_str(), std::stoi(rest));
    if (context_ == nullptr || context_->err != 0) {
      if (context_ != nullptr) redisAsyncFree(context_);
      throw std::runtime_error("redis: cannot connect to " + address);
    }
    context_->ev.data = this;
    context_->ev.addRead = [](void* self) { static_cast<Redis*>(self)->want(POLLIN, 0); };
    context_->ev.delRead = [](void* self) { static_cast<Redis*>(self)->want(0, POLLIN); };
    context_->ev.addWrite = [](void* self) { static_cast<Redis*>(self)->want(POLLOUT, 0); };
    context_->ev.delWrite = [](void* self) { static_cast<Redis*>(self)->want(0, POLLOUT); };
    context_->ev.cleanup = [](void* self) { static_cast<Redis*>(self)->forget(); };
    want(POLLOUT, 0);  // once it is connected
  }
  Redis(Redis&&) = delete;
  ~Redis() {
    if (context_ != nullptr) redisAsyncFree(context_);
  }

  /// Sends `{"SET", "key", "value"}` along with whatever others send in this turn. Dropped: it is
  /// done all the same, and its reply thrown away. Throws what Redis calls an error, too.
  weir::Task<RedisReply> command(std::vector<std::string> words) {
    const auto answer = std::make_shared<Answer>();
    send(words, &Redis::on_reply, answer.get());
    answer->until_replied = answer;
    co_await answer->done.wait();
    if (answer->reply.type == REDIS_REPLY_ERROR) throw std::runtime_error(answer->reply.text);
    co_return std::move(answer->reply);
  }

  /// This connection is for nothing but `subscribe` from here on.
  Messages subscribe(const std::string& channel, std::size_t most_waiting = 10'000) {
    subscriptions_.push_back(std::make_shared<weir::Channel<std::string>>(most_waiting));
    send({"SUBSCRIBE", channel}, &Redis::on_message, subscriptions_.back().get());
    return subscriptions_.back();
  }

 private:
  struct Answer {
    weir::Event done = {};
    std::shared_ptr<Answer> until_replied = {};
    RedisReply reply = {};
  };
  static constexpr char kEnded[] = "redis: the connection has ended";
  static void copy(const redisReply& from, RedisReply& to) {
    to = {.type = from.type, .integer = from.integer};
    if (from.str != nullptr) to.text.assign(from.str, static_cast<std::size_t>(from.len));
    for (auto* of : std::span(from.element, from.elements)) copy(*of, to.elements.emplace_back());
  }
  static void on_reply(redisAsyncContext* /*context*/, void* reply, void* data) {
    const auto answer = std::move(static_cast<Answer*>(data)->until_replied);
    if (reply == nullptr) answer->reply = {.type = REDIS_REPLY_ERROR, .text = kEnded};
    if (reply != nullptr) copy(*static_cast<redisReply*>(reply), answer->reply);
    answer->done.set();
  }
  static void on_message(redisAsyncContext* /*context*/, void* reply, void* data) {
    auto& messages = *static_cast<weir::Channel<std::string>*>(data);
    RedisReply got;
    if (reply != nullptr) copy(*static_cast<redisReply*>(reply), got);
    if (reply != nullptr && got.elements[0].text != "message") return;
    if (reply == nullptr || !messages.try_send(std::move(got.elements[2].text))) messages.close();
  }
  void want(int more, int less) {
    watched_.watch(context_->c.fd, events_ = (events_ | more) & ~less);
  }
  void forget() { watched_.watch(std::exchange(context_, nullptr)->c.fd, 0); }
  void act(int revents) {
    if ((revents & ~POLLOUT) != 0) redisAsyncHandleRead(context_);
    if (context_ != nullptr && (revents & POLLOUT) != 0) redisAsyncHandleWrite(context_);
  }
  void send(const std::vector<std::string>& words, redisCallbackFn* callback, void* data) {
    text_ = '*' + std::to_string(words.size()) + "\r\n";  // hiredis' own takes four times as long
    for (const std::string& word : words)
      ((text_ += '$') += std::to_string(word.size())).append("\r\n").append(word).append("\r\n");
    if (context_ == nullptr || redisAsyncFormattedCommand(context_, callback, data, text_.data(),
                                                          text_.size()) != REDIS_OK)
      throw std::runtime_error(kEnded);
  }

  redisAsyncContext* context_ = nullptr;
  int events_ = 0;
  std::string text_;
  std::vector<Messages> subscriptions_;
  Watched watched_{[this](int, int revents) { act(revents); }, [] {}};
};

}  // namespace adapters
