// What is being typed: a word beyond ipvsadm and what belongs to it, an option's value, or an option.
#include "director/vsadm/completion.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <string_view>

#include "director/command_line.h"
#include "director/core/scheduler.h"
#include "director/core/tunables.h"

namespace director::vsadm {
namespace {

using Words = std::vector<std::string>;
using Table = std::function<Snapshot()>;

struct Choice {
  std::string_view name, words;  // the words with blanks between
};
/// The words beyond ipvsadm, and their options.
constexpr Choice kWords[] = {
    {"apply", "--dry-run --json"}, {"drain", "--timeout --on-timeout --json"},
    {"doctor", "--json"},   {"explain", "--json"},
    {"reasons", "--json"},  {"top", "--interval --sort --json -n -t -u --sctp-service -f"},
    {"tune", "--json"},
};
constexpr std::string_view kWithoutValue[] = {"--dry-run", "--json"};  // of those options
/// Values that are one of a few, by their option's long name.
constexpr Choice kValues[] = {
    {"start-daemon", "master backup"},
    {"stop-daemon", "master backup"},
    {"pe", "sip"},
    {"tun-type", "ipip gue gre"},
    {"no-server", "rst icmp drop"},
    {"server-gone", "reset drop reschedule"},
    {"server-quiesced", "keep reset reschedule"},
    {"on-timeout", "keep reset"},
    {"sort", "name weight active inact cps inpps outpps inbps outbps"},
};

/// The words of the choice of that name; empty: there is none.
Words words_of(std::span<const Choice> choices, std::string_view name) {
  Words words;
  const auto found = std::ranges::find(choices, name, &Choice::name);
  if (found == choices.end()) return words;
  for (std::string_view rest = found->words; !rest.empty();) {
    words.emplace_back(rest.substr(0, rest.find(' ')));
    rest.remove_prefix(std::min(words.back().size() + 1, rest.size()));
  }
  return words;
}

bool contains(std::span<const std::string> words, std::string_view one) {
  return std::ranges::find(words, one) != words.end();
}

struct ServiceOption {
  std::string_view letter, name;
};
constexpr ServiceOption kServiceOptions[] = {{"-t", "tcp-service"},
                                             {"-u", "udp-service"},
                                             {"--sctp-service", "sctp-service"},
                                             {"-f", "fwmark-service"}};

/// As Snapshot::Service has it: "-t" for "tcp-service"; empty: the option names no service.
std::string_view letter_of(std::string_view option) {
  const auto* const found = std::ranges::find(kServiceOptions, option, &ServiceOption::name);
  return found == std::end(kServiceOptions) ? std::string_view{} : found->letter;
}

/// The value of an option that was given.
std::string_view given(const Unfinished& line, std::string_view option) {
  const auto found = std::ranges::find(line.given, option, [](const auto& pair) { return pair.first; });
  return found == line.given.end() ? std::string_view{} : std::string_view{found->second};
}

const Snapshot::Service* find_service(const Snapshot& table, std::string_view letter, std::string_view name) {
  const auto found = std::ranges::find_if(
      table.services, [&](const Snapshot::Service& s) { return s.option == letter && s.name == name; });
  return found == table.services.end() ? nullptr : &*found;
}

Words services_of(const Snapshot& table, std::string_view letter) {
  Words words;
  for (const Snapshot::Service& service : table.services)
    if (service.option == letter) words.push_back(service.name);
  return words;
}

Words servers_of(const Snapshot::Service* service) {
  Words words;
  if (service != nullptr)
    for (const Snapshot::Server& server : service->servers) words.push_back(server.name);
  return words;
}

/// Servers of other services, which may serve this one too.
Words servers_elsewhere(const Snapshot& table, const Snapshot::Service* service) {
  const Words here = servers_of(service);
  Words words;
  for (const Snapshot::Service& other : table.services)
    for (const Snapshot::Server& server : other.servers)
      if (!contains(here, server.name)) words.push_back(server.name);
  return words;
}

Words servers_for(const Unfinished& line, const Snapshot& table) {
  for (const ServiceOption& option : kServiceOptions) {
    const std::string_view name = given(line, option.name);
    if (name.empty()) continue;
    const Snapshot::Service* const service = find_service(table, option.letter, name);
    return line.command == "add-server" ? servers_elsewhere(table, service) : servers_of(service);
  }
  return {};
}

/// Of an option, by its long name.
Words values_of(std::string_view option, const Unfinished& line, const Table& table) {
  if (const std::string_view letter = letter_of(option); !letter.empty())
    return line.command == "add-service" ? Words{} : services_of(table(), letter);
  if (option == "real-server") return servers_for(line, table());
  if (option == "scheduler") return {scheduler_names().begin(), scheduler_names().end()};
  if (option == "sched-flags") {
    const std::string_view scheduler = given(line, "scheduler");
    if (scheduler != "sh" && scheduler != "mh") return {};
    return {fmt::format("{}-fallback", scheduler), fmt::format("{}-port", scheduler)};
  }
  return words_of(kValues, option);
}

/// What must come, or all that may: by letter, or in full once "--" is typed.
Words options_of(const Unfinished& line, std::string_view typed) {
  const bool must = typed.empty() && std::ranges::any_of(line.next, &Unfinished::Next::is_required);
  Words words;
  for (const Unfinished::Next& option : line.next) {
    if (must && !option.is_required) continue;
    if (option.name.starts_with("timeout-") && !typed.starts_with("--t")) continue;  // there are 25 of them
    words.push_back(option.letter != 0 && !typed.starts_with("--") ? fmt::format("-{}", option.letter)
                                                                   : fmt::format("--{}", option.name));
  }
  return words;
}

// --- words beyond ipvsadm ------------------------------------------------------------------------------------------------

/// As drain names services: "10.9.0.100:80", "udp:10.9.0.100:53".
constexpr std::pair<std::string_view, std::string_view> kPrefixes[] = {
    {"-t", ""}, {"-u", "udp:"}, {"--sctp-service", "sctp:"}};

Words drainable_services(const Snapshot& table) {
  Words words;
  for (const auto& [letter, prefix] : kPrefixes)
    for (const std::string& name : services_of(table, letter))
      words.push_back(fmt::format("{}{}", prefix, name));
  return words;
}

Words servers_of_drainable(const Snapshot& table, std::string_view name) {
  for (const auto& [letter, prefix] : kPrefixes)
    if (const auto* const service =
            find_service(table, letter, name.substr(name.starts_with(prefix) ? prefix.size() : 0));
        service != nullptr && name.starts_with(prefix))
      return servers_of(service);
  return {};
}

/// Whether the word of the command line is an option whose value follows.
bool wants_value(std::string_view word) {
  return word.starts_with('-') && word.find('=') == word.npos &&
         std::ranges::find(kWithoutValue, word) == std::end(kWithoutValue);
}

/// The words that are neither options nor their values.
Words operands(std::span<const std::string> words) {
  Words found;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (!words[i].starts_with('-'))
      found.push_back(words[i]);
    else if (wants_value(words[i]))
      ++i;
  }
  return found;
}

Completion complete_word(std::string_view word, std::span<const std::string> before, std::string_view typed,
                         const Table& table) {
  if (!before.empty() && wants_value(before.back())) {
    std::string_view option = before.back();
    option.remove_prefix(option.find_first_not_of('-'));
    for (const ServiceOption& service : kServiceOptions)
      if (service.letter == before.back()) option = service.name;
    return {values_of(option, {}, table), false};
  }
  Completion completion;
  const Words named = operands(before);
  if (!typed.starts_with('-')) {
    if (word == "apply" && named.empty()) return {{}, true};
    if (word == "drain" && named.empty()) completion.words = drainable_services(table());
    if (word == "drain" && named.size() == 1) completion.words = servers_of_drainable(table(), named[0]);
    if (word == "tune")
      for (const TunableInfo& knob : kTunables) completion.words.push_back(fmt::format("{}=", knob.name));
  }
  if (completion.words.empty())
    for (std::string& option : words_of(kWords, word))
      if (!contains(before, option)) completion.words.push_back(std::move(option));
  return completion;
}

// --- all of it -------------------------------------------------------------------------------------------------------------

Completion all_that_fits(std::span<const std::string> before, std::string_view typed, const Table& table) {
  if (!before.empty()) {
    if (!words_of(kWords, before[0]).empty())
      return complete_word(before[0], before.subspan(1), typed, table);
    if (!before[0].starts_with('-')) return {};
  }
  const Unfinished line = read_unfinished(before);
  if (!line.value_of.empty()) return {values_of(line.value_of, line, table), false};
  if (const std::size_t equals = typed.find('='); typed.starts_with("--") && equals != typed.npos) {
    Completion completion{values_of(typed.substr(2, equals - 2), line, table), false};
    for (std::string& word : completion.words) word.insert(0, typed.substr(0, equals + 1));
    return completion;
  }
  Completion completion;
  if (before.empty()) {
    for (const Choice& word : kWords) completion.words.emplace_back(word.name);
    completion.words.emplace_back("--control");  // main.cpp's
  }
  std::ranges::move(options_of(line, typed), std::back_inserter(completion.words));
  return completion;
}

}  // namespace

Completion complete(std::span<const std::string> words, const std::function<Snapshot()>& table) {
  if (words.empty()) return {};
  const std::string_view typed = words.back();
  Completion completion = all_that_fits(words.first(words.size() - 1), typed, table);
  std::set<std::string_view> seen;  // a server may serve many
  std::vector<std::string> fitting;
  for (const std::string& word : completion.words)
    if (word.starts_with(typed) && seen.insert(word).second) fitting.push_back(word);
  completion.words = std::move(fitting);
  return completion;
}

}  // namespace director::vsadm
