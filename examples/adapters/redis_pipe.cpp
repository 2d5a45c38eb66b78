// redis_pipe ADDRESS: sends the commands of standard input, one a line, all at once, and prints the
// replies. ADDRESS is unix:/path or 1.2.3.4:6379.
#include <cstdio>
#include <exception>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "redis.h"

using namespace weir;

namespace {

Task<std::string> answer(adapters::Redis& redis, std::string line) {
  std::istringstream words(line);
  std::vector<std::string> command;
  for (std::string word; words >> word;) command.push_back(std::move(word));
  try {
    const adapters::RedisReply reply = co_await redis.command(command);
    co_return reply.type == REDIS_REPLY_INTEGER ? std::to_string(reply.integer) : reply.text;
  } catch (const std::runtime_error& error) {
    co_return error.what();
  }
}

Task<> pipe(std::string address) {
  adapters::Redis redis(address);
  std::vector<Task<std::string>> answers;
  for (std::string line; std::getline(std::cin, line);) answers.push_back(answer(redis, line));
  const std::vector<std::string> all = co_await when_all(std::move(answers));
  for (const std::string& text : all) std::printf("%s\n", text.c_str());
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) throw std::invalid_argument("usage: redis_pipe ADDRESS");
  run(pipe(argv[1]));
} catch (const std::exception& error) {
  std::fprintf(stderr, "redis_pipe: %s\n", error.what());
  return 1;
}
