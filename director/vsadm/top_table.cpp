// From top to bottom, as it is read: the whole, what was lost, services with their servers.
#include "director/vsadm/top_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "director/duration_text.h"

namespace director::vsadm {
namespace {

struct ColumnInfo {
  std::string_view word;   // for --sort
  std::string_view title;  // ipvsadm's where it has one
};
constexpr std::array<ColumnInfo, kColumns> kInfo{{{"name", "Service"},
                                                  {"weight", "Weight"},
                                                  {"active", "Active"},
                                                  {"inact", "InAct"},
                                                  {"cps", "CPS"},
                                                  {"inpps", "InPPS"},
                                                  {"outpps", "OutPPS"},
                                                  {"inbps", "InBPS"},
                                                  {"outbps", "OutBPS"}}};
constexpr std::size_t kWidth = 7;       // of a number, with a blank in front
constexpr std::size_t kNameWidth = 24;  // "-> 255.255.255.255:65535"

using Numbers = std::array<std::uint64_t, kColumns>;  // by Column; that of the name is nothing

std::uint64_t number(const Numbers& numbers, Column column) {
  return numbers[static_cast<std::size_t>(column)];
}

template <typename Row>
Numbers numbers_of(const Row& row, std::uint64_t weight, std::uint64_t active, std::uint64_t inactive) {
  const Traffic& rate = row.rate;
  return {0,
          weight,
          active,
          inactive,
          rate.connections,
          rate.in_packets,
          rate.out_packets,
          rate.in_bytes,
          rate.out_bytes};
}
Numbers numbers_of(const Snapshot::Server& server) {
  return numbers_of(server, server.weight, server.active, server.inactive);
}
Numbers numbers_of(const Snapshot::Service& service) {
  std::uint64_t weight = 0;
  for (const Snapshot::Server& server : service.servers) weight += server.weight;
  return numbers_of(service, weight, service.active(), service.inactive());
}

/// At most six characters, with ipvsadm's letters.
std::string shortened(std::uint64_t value) {
  if (value <= 999'999) return fmt::format("{}", value);
  std::string_view letters = "KMGTPE";
  for (value /= 1000; value > 99'999; value /= 1000) letters.remove_prefix(1);
  return fmt::format("{}{}", value, letters.front());
}

template <typename Row>
std::vector<const Row*> in_order(const std::vector<Row>& rows, Column column) {
  std::vector<const Row*> order;
  for (const Row& row : rows) order.push_back(&row);
  if (column != Column::name)
    std::ranges::stable_sort(order, [&](const Row* a, const Row* b) {
      return number(numbers_of(*a), column) > number(numbers_of(*b), column);
    });
  return order;
}

/// "TCP 10.9.0.100:80"
std::string label_of(const Snapshot::Service& service) {
  const std::string_view protocol = service.option == "-t"   ? "TCP"
                                    : service.option == "-u" ? "UDP"
                                    : service.option == "-f" ? "FWM"
                                                             : "SCTP";
  return fmt::format("{} {}{}", protocol, service.name, service.option == "-f" && service.is_v6 ? " IPv6" : "");
}

struct Row {
  std::string name;
  std::array<std::string, kColumns> cells;
};

std::vector<Row> rows_of(const Snapshot& snapshot, Column sort) {
  const auto row_of = [](std::string name, const Numbers& numbers) {
    Row row{std::move(name), {}};
    for (std::size_t i = 1; i < kColumns; ++i) row.cells[i] = shortened(numbers[i]);
    return row;
  };
  std::vector<Row> rows;
  for (const Snapshot::Service* service : in_order(snapshot.services, sort)) {
    rows.push_back(row_of(label_of(*service), numbers_of(*service)));
    rows.back().cells[static_cast<std::size_t>(Column::weight)] =
        service->scheduler;  // a sum of weights tells nobody anything
    for (const Snapshot::Server* server : in_order(service->servers, sort))
      rows.push_back(row_of("-> " + server->name, numbers_of(*server)));
  }
  return rows;
}

/// Those that count anything, the fastest first.
std::vector<const Snapshot::Drop*> counted(const Snapshot& snapshot) {
  std::vector<const Snapshot::Drop*> drops;
  for (const Snapshot::Drop& drop : snapshot.drops)
    if (drop.total != 0) drops.push_back(&drop);
  std::ranges::stable_sort(drops, [](const auto* a, const auto* b) {
    return std::pair{a->rate.value_or(0), a->total} > std::pair{b->rate.value_or(0), b->total};
  });
  return drops;
}

std::string plural(std::size_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

void draw_whole(std::vector<std::string>& lines, const Snapshot& snapshot, const TopStyle& style) {
  std::size_t servers = 0;
  std::size_t unusable = 0;
  std::uint64_t active = 0;
  std::uint64_t inactive = 0;
  Traffic rate;
  for (const Snapshot::Service& service : snapshot.services) {
    servers += service.servers.size();
    unusable +=
        static_cast<std::size_t>(std::ranges::count(service.servers, false, &Snapshot::Server::usable));
    active += service.active();
    inactive += service.inactive();
    rate.connections += service.rate.connections;
    rate.in_packets += service.rate.in_packets;
    rate.out_packets += service.rate.out_packets;
    rate.in_bytes += service.rate.in_bytes;
    rate.out_bytes += service.rate.out_bytes;
  }
  lines.push_back(fmt::format("vsadm top  {}  every {}  by {}", style.time, duration_text(style.interval),
                              kInfo[static_cast<std::size_t>(style.sort)].word));
  lines.push_back(fmt::format("{}, {}{}; connections: {} active, {} inactive",
                              plural(snapshot.services.size(), "service"), plural(servers, "server"),
                              unusable == 0 ? "" : fmt::format(" ({} unusable)", unusable), active,
                              inactive));
  lines.push_back(
      fmt::format("per second: connections {}; in: packets {}, bytes {}; out: packets {}, bytes {}",
                  shortened(rate.connections), shortened(rate.in_packets), shortened(rate.in_bytes),
                  shortened(rate.out_packets), shortened(rate.out_bytes)));
}

void draw_drops(std::vector<std::string>& lines, const Snapshot& snapshot, std::size_t room) {
  const auto drops = counted(snapshot);
  if (drops.empty()) return lines.push_back("nothing was dropped or refused");
  lines.push_back(fmt::format("{:<22}{:>{}}{:>12}", "Dropped, refused", "/s", kWidth, "total"));
  const std::size_t shown = drops.size() <= room ? drops.size() : room - 1;
  for (std::size_t i = 0; i < shown; ++i)
    lines.push_back(fmt::format("{:<22}{:>{}}{:>12}  {}", drops[i]->name,
                                drops[i]->rate ? shortened(*drops[i]->rate) : "-", kWidth, drops[i]->total,
                                drops[i]->text));
  if (shown < drops.size()) lines.push_back(fmt::format("and {} more: vsadm reasons", drops.size() - shown));
}

/// Columns that don't fit are left out: half a number would be a wrong one.
std::string table_line(std::string_view name, const std::array<std::string, kColumns>& cells,
                       std::size_t name_width, std::size_t columns) {
  std::string line = fmt::format("{:<{}}", name, name_width);
  for (std::size_t i = 1; i < columns; ++i) line += fmt::format("{:>{}}", cells[i], kWidth);
  return line;
}

}  // namespace

std::optional<Column> parse_column(std::string_view text) {
  const auto found = std::ranges::find(kInfo, text, &ColumnInfo::word);
  if (found == kInfo.end()) return {};
  return static_cast<Column>(found - kInfo.begin());
}

TopTable draw_top(const Snapshot& snapshot, const TopStyle& style) {
  TopTable table;
  auto& lines = table.lines;
  draw_whole(lines, snapshot, style);
  lines.emplace_back();
  draw_drops(lines, snapshot,
             style.window ? std::max<std::size_t>(3, style.window->rows / 4) : snapshot.drops.size());
  lines.emplace_back();

  const auto rows = rows_of(snapshot, style.sort);
  std::size_t name_width = kNameWidth;
  for (const Row& row : rows) name_width = std::max(name_width, row.name.size());
  std::size_t columns = kColumns;
  if (style.window) {
    const std::size_t beside = style.window->columns - std::min(name_width, style.window->columns);
    columns = std::min(kColumns, 1 + beside / kWidth);
  }
  std::array<std::string, kColumns> titles;
  for (std::size_t i = 0; i < kColumns; ++i) titles[i] = kInfo[i].title;
  table.heading = lines.size();
  lines.push_back(table_line(titles[0], titles, name_width, columns));

  const std::size_t used = lines.size();
  const std::size_t room = !style.window               ? rows.size()
                           : style.window->rows > used ? style.window->rows - used
                                                       : 0;
  table.first = std::min(style.first, rows.size() - std::min(room, rows.size()));
  for (std::size_t i = table.first; i < rows.size() && i < table.first + room; ++i)
    lines.push_back(table_line(rows[i].name, rows[i].cells, name_width, columns));
  if (style.window) {
    for (std::string& line : lines) line.resize(std::min(line.size(), style.window->columns));
    lines.resize(std::min(lines.size(), style.window->rows));
  }
  return table;
}

std::string top_json(const Snapshot& snapshot, std::string_view time, std::optional<Duration> elapsed) {
  using Json = nlohmann::ordered_json;
  const auto json_of = [](const Traffic& t) {
    return Json{{"connections", t.connections},
                {"in_packets", t.in_packets},
                {"out_packets", t.out_packets},
                {"in_bytes", t.in_bytes},
                {"out_bytes", t.out_bytes}};
  };
  Json json{{"time", time}, {"interval", nullptr}, {"services", Json::array()}, {"drops", Json::array()}};
  if (elapsed) json["interval"] = static_cast<double>(*elapsed / std::chrono::milliseconds{1}) / 1000;
  for (const Snapshot::Service& service : snapshot.services) {
    Json servers = Json::array();
    for (const Snapshot::Server& server : service.servers)
      servers.push_back({{"server", server.name},
                         {"weight", server.weight},
                         {"usable", server.usable},
                         {"active", server.active},
                         {"inactive", server.inactive},
                         {"stats", json_of(server.total)},
                         {"rate", json_of(server.rate)}});
    json["services"].push_back({{"service", label_of(service)},
                                {"scheduler", service.scheduler},
                                {"active", service.active()},
                                {"inactive", service.inactive()},
                                {"stats", json_of(service.total)},
                                {"rate", json_of(service.rate)},
                                {"servers", std::move(servers)}});
  }
  for (const Snapshot::Drop& drop : snapshot.drops) {
    Json one{{"name", drop.name},
             {"fate", drop.is_refusal ? "refused" : "dropped"},
             {"count", drop.total},
             {"rate", nullptr}};
    if (drop.rate) one["rate"] = *drop.rate;
    json["drops"].push_back(std::move(one));
  }
  return json.dump() + "\n";
}

}  // namespace director::vsadm
