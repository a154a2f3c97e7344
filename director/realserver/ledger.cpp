// See the header.
#include "director/realserver/ledger.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

namespace director::realserver {
namespace {

constexpr std::array<std::string_view, 3> kKinds{"sysctl", "address", "link"};

std::string_view word(Change::Kind kind) {
  return kKinds[static_cast<std::size_t>(kind)];
}

std::optional<Change::Kind> parse_kind(std::string_view text) {
  const auto* const at = std::find(kKinds.begin(), kKinds.end(), text);
  if (at == kKinds.end()) return {};
  return static_cast<Change::Kind>(at - kKinds.begin());
}

std::string word(const Need& need) {
  switch (need.served) {
    case Need::While::any:
      return "any";
    case Need::While::tun:
      return "tun";
    case Need::While::vip:
      return format_as(need.vip);
  }
  return {};
}

std::optional<Need> parse_need(std::string_view text) {
  if (text == "any") return Need{Need::While::any, {}};
  if (text == "tun") return Need{Need::While::tun, {}};
  const auto vip = IpAddress::parse(text);
  return vip ? std::optional{Need{Need::While::vip, *vip}} : std::nullopt;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    if (end != 0) parts.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

/// Takes one line into the ledger; false if it isn't one of ours.
bool take_line(Ledger& ledger, std::span<const std::string_view> words) {
  if (words[0] == "namespace" && words.size() == 3) {
    ledger.name_space = fmt::format("{} {}", words[1], words[2]);
    return true;
  }
  if (words[0] == "serves" && words.size() >= 3) {
    const auto mode = parse_mode(words[1]);
    const auto vip = IpAddress::parse(words[2]);
    if (!mode || !vip) return false;
    Service service{*mode, *vip, {}};
    for (const std::string_view word : words.subspan(3)) {
      const auto end = parse_tunnel_end(word);
      if (!end) return false;
      service.tunnels.push_back(*end);
    }
    ledger.services.push_back(std::move(service));
    return true;
  }
  if (words[0] == "changed" && words.size() == 6) {
    const auto need = parse_need(words[1]);
    const auto kind = parse_kind(words[2]);
    if (!need || !kind) return false;
    ledger.changes.push_back(
        {*need, *kind, std::string{words[3]}, std::string{words[4]}, std::string{words[5]}});
    return true;
  }
  return false;
}

}  // namespace

std::vector<TunnelEnd> Service::ends() const {
  std::vector<TunnelEnd> ends;
  if (mode != Mode::tun) return ends;
  const TunnelEnd bare = TunnelEnd::bare(vip.family());
  if (tunnels.empty()) ends.push_back(bare);
  for (const TunnelEnd& t : tunnels) ends.push_back(t.is_bare() ? bare : t);
  return ends;
}

Service* Ledger::find(const Service& s) {
  const auto at = std::find_if(services.begin(), services.end(), [&](const Service& o) { return o.same(s); });
  return at == services.end() ? nullptr : &*at;
}

bool Ledger::needs(const Need& need) const {
  return std::any_of(services.begin(), services.end(), [&](const Service& s) {
    switch (need.served) {
      case Need::While::any:
        return true;
      case Need::While::tun:
        return s.mode == Mode::tun;
      case Need::While::vip:
        return s.vip == need.vip;
    }
    return false;
  });
}

std::vector<IpAddress> Ledger::vips(Mode mode) const {
  std::vector<IpAddress> found;
  for (const Service& s : services)
    if (s.mode == mode) found.push_back(s.vip);
  return found;
}

std::optional<std::size_t> Ledger::latest_unneeded() const {
  for (std::size_t i = changes.size(); i-- > 0;)
    if (!needs(changes[i].need)) return i;
  return {};
}

std::string write_ledger(const Ledger& ledger) {
  std::string text = fmt::format(
      "# what `realserver up` changed in this network namespace; `realserver down` reads it\nnamespace {}\n",
      ledger.name_space);
  for (const Service& s : ledger.services) {
    text += fmt::format("serves {} {}", format_as(s.mode), format_as(s.vip));
    for (const TunnelEnd& t : s.tunnels) text += " " + format_as(t);
    text += "\n";
  }
  for (const Change& c : ledger.changes) {
    text += fmt::format("changed {} {} {} {} {}\n", word(c.need), word(c.kind), c.what, c.before, c.after);
  }
  return text;
}

Result<Ledger> read_ledger(std::string_view text) {
  Ledger ledger;
  int number = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    const auto words = split(line, ' ');
    if (words.empty() || words[0].starts_with('#')) continue;
    if (!take_line(ledger, words)) {
      return fail(fmt::format("line {}: expected namespace, serves or changed, found \"{}\"", number, line));
    }
  }
  return ledger;
}

std::string format_as(Mode mode) {
  return mode == Mode::dr ? "dr" : "tun";
}

std::optional<Mode> parse_mode(std::string_view text) {
  if (text == "dr") return Mode::dr;
  if (text == "tun") return Mode::tun;
  return {};
}

std::string format_as(const Change& change) {
  if (change.kind == Change::Kind::address) {
    const std::size_t at = change.what.find('@');
    return fmt::format("{} on {}: {} -> {}", change.what.substr(0, at),
                       change.what.substr(std::min(at + 1, change.what.size())), change.before, change.after);
  }

  return fmt::format("{}: {} -> {}", change.what, change.before, change.after);
}

}  // namespace director::realserver
