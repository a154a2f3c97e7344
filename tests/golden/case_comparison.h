// A capture case, replayed and compared with what the kernel's IPVS did: frames, listings, statistics, rules, decisions.
//
// Used by the golden tests (captures kept in this folder) and by golden_compare (a folder on its command line, as tests/oracle
// makes them). What is compared byte for byte and what may differ is here and in compare.h, and nowhere else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "compare.h"

namespace director::golden {

/// What ours does instead of what the kernel did: departures/FAMILY/CASE.txt. "step N", then a full line of packet text for each frame
/// of that step; or "stats.txt", then its lines. departures.md says why.
class Departures {
 public:
  Departures() = default;
  /// No such file: no departures. Throws std::runtime_error when it says nothing.
  explicit Departures(const std::filesystem::path& file);
  [[nodiscard]] const std::vector<std::string>* find(const std::string& section) const;

 private:
  std::map<std::string, std::vector<std::string>, std::less<>> sections_;
};

/// Something that isn't as the kernel did it.
struct Difference {
  std::string where;  ///< "step 7: frame, C>V S 0" and the frames that came in, or the name of a listing
  std::string text;   ///< expected and got, line by line
};

/// A rule of departures.md that holds for any traffic: what it explains is counted under its name, and is no difference.
enum class Rules : std::uint8_t { none, known };

struct CaseResult {
  std::vector<Difference> differences;
  std::map<std::string, std::size_t> departures;  ///< rule: how often it explained something
  std::size_t frames_in = 0;
  std::size_t frames_out = 0;  ///< that the kernel sent, each compared
  std::string record;          ///< the differences as the text of a departures file, to be read and judged
};

/// Replays the case in `folder` with --policy kernel. Throws std::runtime_error when the case can't be read.
CaseResult compare_case(const std::filesystem::path& folder, const Departures& departures,
                        Rules rules = Rules::none);

}  // namespace director::golden
