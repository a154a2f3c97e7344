// TopTable: what vsadm top shows of a snapshot, as lines of text or as one line of JSON.
//
// Pure: no terminal, no clock. Rates are the snapshot's (snapshot.h, measured()).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "director/base/time.h"
#include "director/vsadm/snapshot.h"

namespace director::vsadm {

/// Columns of the table; rows can be sorted by each, the largest number first. `name`: as ipvsadm sorts.
enum class Column : std::uint8_t { name, weight, active, inactive, cps, in_pps, out_pps, in_bps, out_bps };
inline constexpr std::size_t kColumns = 9;

/// "name", "weight", "active", "inact", "cps", "inpps", "outpps", "inbps", "outbps"
[[nodiscard]] std::optional<Column> parse_column(std::string_view text);

struct Window {
  std::size_t rows = 24, columns = 80;
};

struct TopStyle {
  std::string time;  ///< of the snapshot
  Duration interval{};
  Column sort = Column::name;
  std::optional<Window> window;  ///< nothing: all there is
  std::size_t first = 0;         ///< of the rows of services and servers: the first to be seen
};

struct TopTable {
  std::vector<std::string> lines;
  std::size_t heading = 0;  ///< which of them has the columns' names
  std::size_t first = 0;    ///< as in the style, but no further than there are rows
};

TopTable draw_top(const Snapshot& snapshot, const TopStyle& style);

/// {"time", "interval", "services", "drops"}; interval: the seconds the rates are of, null: they are the director's averages.
std::string top_json(const Snapshot& snapshot, std::string_view time, std::optional<Duration> elapsed);

}  // namespace director::vsadm
