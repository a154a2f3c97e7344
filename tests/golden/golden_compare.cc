// golden_compare [--json] [--known-departures] DIR...: capture cases anywhere, replayed with --policy kernel and compared with what the kernel did.
//
// What the golden tests do with the cases of this folder, for a case named on the command line: of tests/oracle, or of anybody with a
// capture. With --json a line of JSON for each case; with --known-departures what a rule of
// departure_rules.h explains is counted, not told. Exit code: 0 all as the kernel's, 1 differences, 2 usage or an unreadable case.
#include <fmt/format.h>

#include <exception>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "case_comparison.h"

namespace director::golden {
namespace {

void print_text(const std::string& folder, const CaseResult& result) {
  fmt::print("{}: {} frames in, {} out, {}\n", folder, result.frames_in, result.frames_out,
             result.differences.empty() ? "as the kernel's"
                                        : fmt::format("{} differences", result.differences.size()));
  for (const Difference& d : result.differences) fmt::print("{}\n{}", d.where, d.text);
}

void print_json(const std::string& folder, const CaseResult& result) {
  nlohmann::json differences = nlohmann::json::array();
  for (const Difference& d : result.differences)
    differences.push_back({{"where", d.where}, {"text", d.text}});
  const nlohmann::json line{{"departures", result.departures},
                            {"case", folder},
                            {"frames_in", result.frames_in},
                            {"frames_out", result.frames_out},
                            {"differences", std::move(differences)}};
  fmt::print("{}\n", line.dump());
}

int run(const std::vector<std::string>& words) {
  constexpr auto kUsage = "usage: golden_compare [--json] [--known-departures] DIR...\n";
  bool json = false;
  Rules rules = Rules::none;
  int code = 0;
  std::vector<std::string> folders;
  for (const std::string& word : words) {
    if (word == "--json") {
      json = true;
    } else if (word == "--known-departures") {
      rules = Rules::known;
    } else if (word.starts_with('-')) {
      fmt::print(stderr, "golden_compare: there is no option {}\nusage: golden_compare [--json] DIR...\n",
                 word);
      return 2;
    } else {
      folders.push_back(word);
    }
  }
  if (folders.empty()) {
    fmt::print(stderr, "{}", kUsage);
    return 2;
  }
  for (const std::string& folder : folders) {
    try {
      const CaseResult result = compare_case(folder, Departures{}, rules);
      (json ? print_json : print_text)(folder, result);
      if (!result.differences.empty() && code == 0) code = 1;
    } catch (const std::exception& error) {
      fmt::print(stderr, "golden_compare: {}: {}\n", folder, error.what());
      code = 2;
    }
  }
  return code;
}

}  // namespace
}  // namespace director::golden

int main(int argc, char** argv) {
  return director::golden::run({argv + 1, argv + argc});
}
