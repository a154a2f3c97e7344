// Captures of the kernel's IPVS, replayed: the same frames out, the same connections, lists, statistics and rules.
//
// A folder below tests/golden (or $DIRECTOR_GOLDEN) with a case.json is a case, and a test. departures.md says where ours
// goes another way on purpose, and `departures/` holds what it does there instead. With $DIRECTOR_GOLDEN_RECORD set, what differs
// is written as a departure, to be read, judged and given a reason in departures.md.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "case_comparison.h"

namespace director::golden {
namespace {

namespace fs = std::filesystem;

fs::path golden_folder() {
  const char* elsewhere = std::getenv("DIRECTOR_GOLDEN");
  return elsewhere != nullptr ? fs::path{elsewhere} : fs::path{DIRECTOR_SOURCE_DIR} / "tests/golden";
}

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  const fs::path root = golden_folder();
  for (const auto& family : fs::directory_iterator(root)) {
    if (!family.is_directory() || family.path().filename() == "departures") continue;
    for (const auto& folder : fs::directory_iterator(family.path()))
      if (fs::exists(folder.path() / "case.json"))
        names.push_back(fs::relative(folder.path(), root).string());
  }
  std::ranges::sort(names);
  return names;
}

class Golden : public testing::TestWithParam<std::string> {};

TEST_P(Golden, IsWhatTheKernelDid) {
  const fs::path departures_file = golden_folder() / "departures" / (GetParam() + ".txt");
  const CaseResult result = compare_case(golden_folder() / GetParam(), Departures(departures_file));
  for (const Difference& difference : result.differences)
    ADD_FAILURE() << difference.where << "\n" << difference.text;
  if (std::getenv("DIRECTOR_GOLDEN_RECORD") == nullptr || result.record.empty()) return;
  fs::create_directories(departures_file.parent_path());
  std::ofstream(departures_file) << result.record;
}

std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::ranges::replace_if(
      name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Kernel, Golden, testing::ValuesIn(case_names()), test_name);

}  // namespace
}  // namespace director::golden
