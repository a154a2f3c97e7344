// vsadm: hands its command line to the director and prints the answer. The grammar, the tables and the decisions are the
// director's (command.h); this program knows where the director is, looks up what the director must not wait for, and waits.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <span>
#include <thread>

#include "director/command_line.h"
#include "director/vsadm/answers.h"
#include "director/vsadm/completion.h"
#include "director/vsadm/director_link.h"
#include "director/vsadm/help.h"
#include "director/vsadm/top.h"

namespace director::vsadm {
namespace {

/// How long somebody who types waits for the names of services.
constexpr std::chrono::milliseconds kTypingPatience{500};
constexpr const char* kDefaultControl = "/run/director/control.sock";

/// Takes a leading --control PATH out of the words.
std::string control_path(std::vector<std::string>& words) {
  static constexpr std::string_view kOption = "--control";
  if (words.size() > 1 && words[0] == kOption) {
    std::string path = words[1];
    words.erase(words.begin(), words.begin() + 2);
    return path;
  }
  if (!words.empty() && words[0].starts_with("--control=")) {
    std::string path = words[0].substr(kOption.size() + 1);
    words.erase(words.begin());
    return path;
  }
  const char* const environment = std::getenv("DIRECTOR_CONTROL");
  return environment != nullptr && *environment != '\0' ? environment : kDefaultControl;
}

/// Whether the program is called as itself and not as one of those it stands in for.
bool beyond_ipvsadm(std::string_view program) {
  return !program.substr(program.rfind('/') + 1).starts_with("ipvsadm");
}

int say(std::string_view text) {
  fmt::print("{}", text);
  return 0;
}

int complain(std::string_view program, std::string_view sentence, int exit_code) {
  fmt::print(stderr, "{}: {}\n", program.substr(program.rfind('/') + 1), sentence);
  return exit_code;
}

/// Asks, answers what is asked back, and asks again until there is an answer.
int converse(const DirectorLink& director, Request request) {
  const std::string& program = request.argv.front();
  const std::vector<std::string> words{request.argv.begin() + 1, request.argv.end()};
  for (;;) {
    const auto answer = director.ask(request);
    if (!answer) return complain(program, answer.error().sentence, answer.error().exit_code);
    for (const std::string& question : answer->wanted) {
      if (request.answers.contains(question))
        return complain(program, "the director asks again: " + question, 1);
      auto found = answer_to(question, words);
      if (!found) return complain(program, found.error().message, 1);
      request.answers[question] = std::move(*found);
    }
    if (!answer->wanted.empty()) continue;
    std::fwrite(answer->out.data(), 1, answer->out.size(), stdout);
    std::fflush(stdout);
    std::fwrite(answer->err.data(), 1, answer->err.size(), stderr);
    if (!answer->again) return answer->exit_code;
    for (const auto& [key, value] : answer->again->remember) request.answers[key] = value;
    std::this_thread::sleep_for(answer->again->after);
  }
}

/// For the shells' completions: a candidate a line, or ":file". Whatever goes wrong, there is nothing to say.
int print_completions(std::span<const std::string> words) {
  std::vector<std::string> rest{words.begin(), words.end()};
  const std::string control = control_path(rest);
  const auto table = [&] {
    const auto answer = DirectorLink{control, kTypingPatience}.ask(Request{{"vsadm", "-L", "-n", "--json"}, {}});
    auto snapshot = answer ? read_snapshot(answer->out, "") : Result<Snapshot>{Snapshot{}};
    return snapshot ? std::move(*snapshot) : Snapshot{};
  };
  const Completion completion = rest.empty() ? Completion{{}, true} : complete(rest, table);  // empty: PATH is being typed
  if (completion.is_file) return say(":file\n");
  for (const std::string& word : completion.words) fmt::print("{}\n", word);
  return 0;
}

int run(std::vector<std::string> argv) {
  const std::string program = argv.empty() ? "vsadm" : argv.front();
  std::vector<std::string> words{argv.begin() + (argv.empty() ? 0 : 1), argv.end()};
  const std::string control = control_path(words);
  Lookups nobody;
  if (const auto command = parse_command(program, words, nobody)) {
    if (std::holds_alternative<Help>(*command)) return say(help(program));
    if (std::holds_alternative<Version>(*command)) return say(version(program));
  }
  if (!words.empty() && beyond_ipvsadm(program)) {
    const auto rest = std::span{words}.subspan(1);
    if (words[0] == "complete") return print_completions(rest);
    // Whether somebody looks is known here alone.
    if (words[0] == "explain" && isatty(STDOUT_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr)
      words.insert(words.begin() + 1, "--colour");
    if (words[0] == "top") return top(DirectorLink{control}, program, rest);
  }
  words.insert(words.begin(), program);
  return converse(DirectorLink{control}, Request{std::move(words), {}});
}

}  // namespace
}  // namespace director::vsadm

int main(int argc, char** argv) {
  return director::vsadm::run({argv, argv + argc});
}
