// Processing with a listener, the differences, and the two ways to print them.
#include "director/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "director/net/headers.h"

namespace director {
namespace {

constexpr MacAddress kSomebody{{0x02, 0, 0, 0, 0, 0x01}};  // who sent a packet that was only described

/// A head's words: who and to whom stand on both sides of ">".
struct Head {
  std::string kind, source, target, rest;
};

Head read_head(const std::string& text) {
  Head head;
  std::istringstream in(text);
  std::string word;
  in >> head.kind >> head.source >> word;
  if (word != ">") return {head.kind, "", "", text};
  in >> head.target;
  std::getline(in >> std::ws, head.rest);
  return head;
}

bool is_tunnel(const PacketText& text) {
  const std::string kind = read_head(text.head).kind;
  return kind == "ipip" || kind == "gre" || kind == "gue";
}

std::string value_of(const PacketText::Field& field) {
  const std::string& value = field.exact.empty() ? field.value : field.exact;
  return value.empty() ? "yes" : value;
}

bool is_mac(std::string_view field) { return field == "smac" || field == "dmac"; }

void compare_packets(const PacketText& before, const PacketText& after, std::vector<Explained::Rewrite>& into) {
  const Head was = read_head(before.head);
  const Head is = read_head(after.head);
  const auto note = [&](std::string_view field, const std::string& b, const std::string& a) {
    if (a != b) into.push_back({std::string{field}, b, a});
  };
  note("source", was.source, is.source);
  note("target", was.target, is.target);
  note("what", was.rest, is.rest);
  for (const PacketText::Field& field : before.fields) {
    if (is_mac(field.name)) continue;
    const auto* now = after.find(field.name);
    note(field.name, value_of(field), now != nullptr ? value_of(*now) : "");
  }
  for (const PacketText::Field& field : after.fields)
    if (!is_mac(field.name) && before.find(field.name) == nullptr) note(field.name, "", value_of(field));
  if (!before.inner.empty() && !after.inner.empty()) {
    std::vector<Explained::Rewrite> inside;
    compare_packets(before.inner[0], after.inner[0], inside);
    for (Explained::Rewrite& r : inside) into.push_back({"inner " + r.field, std::move(r.before), std::move(r.after)});
  }
}

}  // namespace

std::optional<IpAddress> source_of(std::span<const std::byte> bytes) {
  std::vector<std::byte> room(kHeadroom + std::max<std::size_t>(bytes.size(), 64));
  Frame frame = frame_in(room, bytes);
  const auto view = parse_packet(frame);
  return view ? std::optional{view->flow.source.address} : std::nullopt;
}

std::vector<Explained::Rewrite> rewrites(const PacketText& before, const PacketText& after) {
  std::vector<Explained::Rewrite> all;
  for (const std::string_view name : {"dmac", "smac"}) {
    const auto* was = before.find(name);
    const auto* is = after.find(name);
    if (was != nullptr && is != nullptr && was->value != is->value) all.push_back({std::string{name}, was->value, is->value});
  }
  const bool wrapped = is_tunnel(after) && !is_tunnel(before) && !after.inner.empty();
  if (wrapped) {
    PacketText outer = after;
    outer.inner.clear();
    std::erase_if(outer.fields, [](const PacketText::Field& f) { return is_mac(f.name); });
    all.push_back({"outer", "", to_line(outer, Detail::full)});
  }
  compare_packets(before, wrapped ? after.inner[0] : after, all);
  return all;
}

Explained explain(Balancer& balancer, Frame& frame, Instant now) {
  Explained result;
  const PacketText before = describe_frame(frame.bytes(), frame.offload);
  result.packet = to_line(before, Detail::brief);
  const std::size_t waiting = balancer.outbox().size();
  result.verdict = balancer.explain(frame, now, result.how);

  const auto name = [&](DeviceId id) { return balancer.network().find(id)->name; };
  std::vector<const Frame*> gone;
  if (result.verdict.action == Action::transmit) {
    gone.push_back(&frame);
    result.sent.push_back({name(result.verdict.egress), packet_line(frame.bytes(), Detail::brief, frame.offload)});
  }
  for (std::size_t i = waiting; i < balancer.outbox().size(); ++i) {
    const Outbox::Entry& entry = balancer.outbox()[i];
    if (!entry.egress) continue;
    gone.push_back(&entry.frame);
    result.sent.push_back({name(entry.egress), packet_line(entry.frame.bytes(), Detail::brief, entry.frame.offload)});
  }
  // Of a packet that waits for its neighbour's MAC the frame in hand is what will be sent, but for that.
  const Reason why = result.verdict.reason;
  const bool went_on = (result.verdict.action == Action::transmit && (why == Reason::none || why == Reason::routed)) ||
                       why == Reason::neighbour_waits;
  if (went_on) result.rewrites = rewrites(before, describe_frame(frame.bytes(), frame.offload));
  if (const auto* dmac = before.find("dmac"); why == Reason::neighbour_waits && dmac != nullptr) {
    std::erase_if(result.rewrites, [](const auto& r) { return r.field == "dmac"; });
    result.rewrites.insert(result.rewrites.begin(), {"dmac", dmac->value, "the next hop's, when it has answered"});
  }
  return result;
}

Result<Explained> explain_text(Balancer& balancer, std::string_view packet, Instant now) {
  auto built = build_frame(packet, kSomebody, kSomebody);
  if (!built) return Failure{built.error()};
  if (built->bytes.size() > kMaxFrame) return fail(fmt::format("{} bytes are more than any frame has", built->bytes.size()));
  const auto& interfaces = balancer.network().interfaces();
  if (interfaces.empty()) return fail("there is no device a packet could come by");
  const auto from = source_of(built->bytes);
  const DeviceId ingress = from ? balancer.device_towards(*from).value_or(DeviceId{0}) : DeviceId{0};
  auto& ethernet = header_at<EthernetHeader>(std::span<std::byte>{built->bytes}, 0);
  if (ethernet.target == kSomebody) ethernet.target = interfaces[ingress.index].mac;
  std::vector<std::byte> room(kHeadroom + kMaxFrame);
  Frame frame = frame_in(room, built->bytes, built->offload);
  frame.ingress = ingress;
  return explain(balancer, frame, now);
}

std::vector<std::string> packets_in(std::span<const std::string> words) {
  if (words.empty() || words[0].find(' ') != std::string::npos) return {words.begin(), words.end()};
  return {fmt::format("{}", fmt::join(words, " "))};
}

// --- text -----------------------------------------------------------------------------------------------------------

namespace {

struct Paint {
  Colour colour;
  [[nodiscard]] std::string operator()(std::string_view code, std::string_view text) const {
    return colour == Colour::on ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string{text};
  }
};
constexpr std::string_view kBold = "1";
constexpr std::string_view kDim = "2";
constexpr std::string_view kRed = "31";
constexpr std::string_view kGreen = "32";
constexpr std::string_view kYellow = "33";
constexpr std::string_view kCyan = "36";

constexpr std::size_t kTopicWidth = 13;

std::string line(const Paint& paint, std::string_view topic, std::string_view says) {
  return fmt::format("  {}{}\n", paint(kCyan, fmt::format("{:<{}}", topic, kTopicWidth)), says);
}

/// A column is as wide as its widest entry.
template <typename T, typename Text>
std::size_t width(const std::vector<T>& rows, Text text) {
  std::size_t most = 0;
  for (const T& row : rows) most = std::max(most, text(row).size());
  return most;
}

std::string candidate_lines(const Paint& paint, const std::vector<Explanation::Candidate>& all) {
  std::string text;
  const std::size_t name = width(all, [](const auto& c) { return format_as(c.server); });
  const std::size_t standing = width(all, [](const auto& c) { return c.standing; });
  for (const Explanation::Candidate& c : all) {
    std::string row = fmt::format("{} {:<{}}  weight {}, {} active, {} inactive", c.taken ? ">" : " ", format_as(c.server), name, c.weight,
                                  c.active, c.inactive);
    if (standing != 0) row += fmt::format("  {:<{}}", c.standing, standing);
    text += line(paint, "", fmt::format("{}  {}", paint(c.taken ? kBold : kDim, row), paint(c.taken ? kGreen : kDim, c.why)));
  }
  return text;
}

}  // namespace

std::string explanation_text(const Explained& explained, Colour colour) {
  const Paint paint{colour};
  std::string text = fmt::format("{}\n", paint(kBold, explained.packet));
  for (const Explanation::Step& step : explained.how.steps) {
    if (step.topic == "verdict") continue;  // the last word is said last
    text += line(paint, step.topic, step.says) + candidate_lines(paint, step.candidates);
  }
  const std::size_t name = width(explained.rewrites, [](const auto& r) { return r.field; });
  for (std::size_t i = 0; i < explained.rewrites.size(); ++i) {
    const auto& [field, before, after] = explained.rewrites[i];
    const std::string change = before.empty()  ? fmt::format("new: {}", after)
                               : after.empty() ? fmt::format("{} is gone", before)
                                               : fmt::format("{} -> {}", before, paint(kYellow, after));
    text += line(paint, i == 0 ? "rewrite" : "", fmt::format("{:<{}}  {}", field, name, change));
  }
  for (const Explained::Sent& sent : explained.sent)
    text += line(paint, "sent", fmt::format("{}: {}", sent.device, sent.packet));
  for (const Explanation::Step& step : explained.how.steps)
    if (step.topic == "verdict")
      text += line(paint, step.topic, paint(explained.verdict.action == Action::drop ? kRed : kGreen, step.says));
  return text;
}

std::string explanation_json(std::span<const Explained> explained) {
  using Json = nlohmann::ordered_json;
  Json all = Json::array();
  for (const Explained& one : explained) {
    Json steps = Json::array();
    for (const Explanation::Step& step : one.how.steps) {
      Json json = {{"topic", step.topic}, {"says", step.says}};
      for (const auto& [name, value] : step.facts) json[std::string{name}] = value;
      if (step.topic == "scheduler") {
        Json candidates = Json::array();
        for (const Explanation::Candidate& c : step.candidates)
          candidates.push_back({{"server", format_as(c.server)},
                                {"weight", c.weight},
                                {"active", c.active},
                                {"inactive", c.inactive},
                                {"standing", c.standing},
                                {"taken", c.taken},
                                {"why", c.why}});
        json["candidates"] = std::move(candidates);
      }
      steps.push_back(std::move(json));
    }
    Json changes = Json::array();
    for (const Explained::Rewrite& r : one.rewrites)
      changes.push_back({{"field", r.field}, {"before", r.before}, {"after", r.after}});
    Json sent = Json::array();
    for (const Explained::Sent& s : one.sent) sent.push_back({{"device", s.device}, {"packet", s.packet}});
    static constexpr const char* kActions[] = {"transmit", "drop", "pass"};
    all.push_back({{"packet", one.packet},
                   {"steps", std::move(steps)},
                   {"rewrites", std::move(changes)},
                   {"sent", std::move(sent)},
                   {"verdict", {{"action", kActions[static_cast<std::size_t>(one.verdict.action)]},
                                {"reason", std::string{name_of(one.verdict.reason)}},
                                {"says", std::string{text_of(one.verdict.reason)}}}}});
  }
  return all.dump(2) + "\n";
}

}  // namespace director
