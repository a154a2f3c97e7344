// From a file to changes of the table.
#include "director/rules_file.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "director/log.h"
#include "director/plan.h"
#include "director/report.h"
#include "director/rules.h"

namespace director {

namespace {

Result<std::string> read_file(const std::string& file) {
  const std::unique_ptr<std::FILE, decltype(&std::fclose)> in{std::fopen(file.c_str(), "r"), &std::fclose};
  std::string text;
  std::array<char, 65536> buffer;
  std::size_t got = 0;
  while (in && (got = std::fread(buffer.data(), 1, buffer.size(), in.get())) != 0)
    text.append(buffer.data(), got);
  if (!in || std::ferror(in.get()) != 0)
    return fail(fmt::format("{}: can't be read: {}", file, std::strerror(errno)));
  return text;
}

}  // namespace

Result<std::vector<Change>> plan_rules_file(const Balancer& balancer, const std::string& file) {
  if (file.empty()) return std::vector<Change>{};
  const auto text = read_file(file);
  if (!text) return Failure{text.error()};
  const auto rules = parse_rules(*text);
  if (!rules) return fail(rules.error().in(file));
  auto changes = plan_reload(balancer, *rules);
  if (!changes) return fail(changes.error().in(file));
  return *changes;
}

std::vector<Change> plan_first_rules(const Balancer& balancer, const std::string& file) {
  auto changes = plan_rules_file(balancer, file);
  if (!changes) throw StartupError(ExitCode::configuration, changes.error().message);
  return *changes;
}

ExitCode check_rules_file(const std::string& file, Told told) {
  auto json = nlohmann::ordered_json::array();
  const auto complain = [&](const std::string& sentence, const RulesError& at) {
    if (told == Told::as_text) return fmt::print(stderr, "director: {}\n", sentence);
    json.push_back({{"file", file}, {"line", nullptr}, {"column", nullptr}, {"message", at.message}});
    if (at.line != 0) json.back().update({{"line", at.line}, {"column", at.column}});
  };
  const auto text = file.empty() ? std::string{} : read_file(file);
  if (!text) complain(text.error().message, {0, 0, text.error().message});
  const auto problems = text ? problems_in(*text) : std::vector<RulesError>{};
  for (const RulesError& problem : problems) complain(problem.in(file), problem);
  if (told == Told::as_json) fmt::print("{}\n", nlohmann::ordered_json{{"problems", json}}.dump(2));
  return text && problems.empty() ? ExitCode::ok : ExitCode::configuration;
}

void reload_rules_file(Balancer& balancer, const std::string& file, Instant now) {
  if (file.empty()) return log::info("nothing to reload: there was no --rules");
  const auto changes = plan_rules_file(balancer, file);
  if (!changes)
    return log::error("rules not reloaded, nothing has changed", {{"reason", changes.error().message}});
  if (const auto done = apply_all(balancer, *changes, now); !done)
    return log::error("rules reloaded in part only", {{"reason", done.error().message}});
  report_changes(*changes, {{"by", "rules"}});
  log::info("rules reloaded", {{"file", file}, {"changes", changes->size()}});
}

}  // namespace director
