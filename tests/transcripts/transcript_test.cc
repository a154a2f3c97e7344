// Transcripts: commands, frames in, frames out, in packet text. Every *.txt here is a test; README.md tells the form.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>

#include "director/command.h"
#include "director/core/balancer.h"
#include "director/net/format.h"
#include "director/rules.h"

namespace director {
namespace {

namespace fs = std::filesystem;

const fs::path kFolder = fs::path{DIRECTOR_SOURCE_DIR} / "tests/transcripts";
const MacAddress kOwnMac = *MacAddress::parse("02:00:00:00:00:02");
constexpr DeviceId kDevice{0};

/// Everybody's MAC address says who it is: 10.9.0.11 is at 02:00:0a:09:00:0b, 2001:db8::11 at 02:00:00:00:00:11.
MacAddress mac_of(const IpAddress& address) {
  const auto w = address.wire().last(4);
  return {{2, 0, w[0], w[1], w[2], w[3]}};
}

/// The addresses on a line, in order: with or without port, prefix length and brackets.
std::vector<IpAddress> addresses_in(std::string_view line) {
  std::vector<IpAddress> found;
  while (!line.empty()) {
    std::string_view word = line.substr(0, line.find_first_of(" \t(),="));
    line.remove_prefix(std::min(word.size() + 1, line.size()));
    if (word.starts_with('[')) word = word.substr(1, word.find(']') - 1);
    word = word.substr(0, word.find('/'));
    if (word.find('.') != std::string_view::npos) word = word.substr(0, word.find(':'));
    if (const auto a = IpAddress::parse(word)) found.push_back(*a);
  }
  return found;
}

/// Who sends what a line of packet text says: the first address on it, but of "arp who-has A tell B" the second.
std::optional<IpAddress> sender_of(const std::string& line) {
  const std::vector<IpAddress> all = addresses_in(line);
  const std::size_t sender = line.starts_with("arp who-has ") ? 1 : 0;
  return sender < all.size() ? std::optional{all[sender]} : std::nullopt;
}

std::string squeezed(std::string_view line) {
  std::string result;
  for (const char c : line)
    if (c != ' ' || (!result.empty() && result.back() != ' ')) result += c;
  while (!result.empty() && result.back() == ' ') result.pop_back();
  return result;
}

std::vector<std::string> words_of(std::string_view line) {
  return split_rule(line).words;
}

class Transcript {
 public:
  explicit Transcript(const fs::path& file) : name_(file.filename().string()) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) lines_.push_back(line);
  }

  void play() {
    read_settings();
    start();
    for (number_ = 0; number_ < lines_.size() && !testing::Test::HasFatalFailure(); ++number_) {
      const std::string_view line = lines_[number_];
      if (line.empty() || line[0] == '#' || line[0] == '@') continue;
      const std::string_view rest = line.size() > 2 ? line.substr(2) : std::string_view{};
      if (line.starts_with("< ")) {
        goes_out(rest);
      } else if (line.starts_with("! ")) {
        fate(rest);
      } else if (line.starts_with("| ")) {
        row(rest);
      } else {
        settle();
        if (line.starts_with("> ")) {
          comes_in(rest);
        } else if (line.starts_with("+ ")) {
          passes(rest);
        } else {
          command(line);
        }
      }
    }
    settle();
  }

 private:
  struct Sent {
    std::vector<std::byte> bytes;
    Offload offload;
  };

  [[nodiscard]] std::string here() const {
    return fmt::format("{}:{}: {}", name_, number_ + 1, lines_[number_]);
  }
  void complain(const std::string& what) const { ADD_FAILURE() << here() << "\n  " << what; }

  // --- settings: lines with '@', wherever they stand, hold from the start ---
  void read_settings() {
    device_.stack = Stack::own;
    for (number_ = 0; number_ < lines_.size(); ++number_) {
      const std::string& line = lines_[number_];
      if (!line.starts_with('#'))
        for (const IpAddress& a : addresses_in(line))
          if (!a.is_multicast() && !a.is_unspecified()) everybody_.push_back(a);
      if (!line.starts_with("@ ")) continue;
      const std::vector<std::string> words = words_of(line.substr(2));
      const std::string& name = words.at(0);
      const std::string value = words.size() > 1 ? words[1] : "";
      if (name == "policy") {
        options_.policy = value == "kernel" ? Policy::kernel : Policy::improved;
      } else if (name == "mtu") {
        device_.mtu = static_cast<std::uint32_t>(std::stoul(value));
      } else if (name == "stack") {
        device_.stack = value == "host" ? Stack::host : Stack::own;
      } else if (name == "address") {
        addresses_.push_back(*Prefix::parse(value));
      } else if (name == "unknown") {
        unknown_.push_back(*IpAddress::parse(value));
      } else if (name == "announce") {
        options_.announce = true;
      } else if (name == "tune") {
        tuned_.push_back({value, std::stol(words.at(2))});
      } else {
        complain("expected policy, mtu, stack, address, unknown, announce or tune");
      }
    }
  }

  void start() {
    options_.seed = 1;
    balancer_ = std::make_unique<Balancer>(options_);
    device_.device = kDevice;
    device_.name = "eth0";
    device_.mac = kOwnMac;
    const bool ipv6 = std::ranges::any_of(everybody_, [](const IpAddress& a) { return !a.is_v4(); });
    if (addresses_.empty()) {
      addresses_.push_back(*Prefix::parse("192.0.2.2/24"));
      if (ipv6) addresses_.push_back(*Prefix::parse("2001:db8:2::2/64"));
    }
    tell(device_);
    tell(SetAddresses{kDevice, addresses_});
    tell(SetRoutes{{Route{*Prefix::parse("0.0.0.0/0"), kDevice, {}, 0, 0, {}},
                    Route{*Prefix::parse("::/0"), kDevice, {}, 0, 0, {}}}});
    tell(SetForwarding{true});
    for (const IpAddress& a : everybody_)
      if (std::ranges::find(unknown_, a) == unknown_.end()) tell(SetNeighbour{kDevice, a, mac_of(a), true});
    for (const SetTunable& knob : tuned_) tell(knob);
  }

  void tell(const Change& change) {
    number_ = std::min(number_, lines_.size() - 1);
    if (const auto applied = balancer_->apply(change, now_); !applied)
      complain(std::string{text_of(applied.error())});
    collect();
  }

  // --- what happens ---
  void command(std::string_view line) {
    now_ += 1ms;  // what was just set to 900 s is listed as 14:59
    Request request;
    request.argv = words_of(line);
    request.argv.insert(request.argv.begin(), "ipvsadm");
    const Answer answer = run_command(request, *balancer_, now_);
    collect();
    rows_.clear();
    for (std::size_t at = 0; at < answer.out.size();) {
      const std::size_t end = std::min(answer.out.find('\n', at), answer.out.size());
      const std::string text = squeezed(std::string_view{answer.out}.substr(at, end - at));
      const bool heading = text.starts_with("IP Virtual Server") || text.starts_with("Prot ") ||
                           text.starts_with("-> RemoteAddress") || text.starts_with("IPVS ") ||
                           text.starts_with("pro ");
      if (!heading) rows_.push_back(text);
      at = end + 1;
    }
    if (answer.exit_code != 0) complain(answer.err);
    rows_wanted_ = 0;
    listed_at_ = number_;
    lists_ = !answer.out.empty();
  }

  void row(std::string_view text) {
    ++rows_wanted_;
    if (std::ranges::find(rows_, squeezed(text)) == rows_.end())
      complain(fmt::format("no such row; there are:\n    {}", fmt::join(rows_, "\n    ")));
  }

  void comes_in(std::string_view text) {
    const auto sender = sender_of(std::string{text});
    const auto built = build_frame(text, sender ? mac_of(*sender) : MacAddress{}, kOwnMac);
    if (!built) return complain(built.error().message);
    std::vector<std::byte> room(kHeadroom + kMaxFrame);
    Frame frame = frame_in(room, built->bytes, built->offload);
    frame.ingress = kDevice;
    verdict_ = balancer_->process(frame, now_);
    if (verdict_->action == Action::transmit)
      sent_.push_back({{frame.bytes().begin(), frame.bytes().end()}, frame.offload});
    collect();
  }

  void passes(std::string_view text) {
    long count = 0;
    const auto [end, error] = std::from_chars(text.begin(), text.end(), count);
    const std::string_view unit{end, static_cast<std::size_t>(text.end() - end)};
    if (error != std::errc{} || (unit != "s" && unit != "ms" && unit != "min"))
      return complain("expected 10s, 500ms or 15min");
    const Instant until = now_ + (unit == "ms"  ? Duration{std::chrono::milliseconds{count}}
                                  : unit == "s" ? Duration{std::chrono::seconds{count}}
                                                : Duration{std::chrono::minutes{count}});
    while (balancer_->next_deadline() <= until) {
      now_ = std::max(now_, balancer_->next_deadline());
      balancer_->expire(now_);
      collect();
    }
    now_ = until;
    verdict_.reset();
  }

  void collect() {
    Outbox& outbox = balancer_->outbox();
    for (std::size_t i = 0; i < outbox.size(); ++i) {
      if (!outbox[i].egress) continue;
      const Frame& frame = outbox[i].frame;
      sent_.push_back({{frame.bytes().begin(), frame.bytes().end()}, frame.offload});
    }
    outbox.clear();
  }

  // --- what should have happened ---
  void goes_out(std::string_view text) {
    const auto expected = parse_line(text);
    if (!expected) return complain(expected.error().message);
    if (next_sent_ == sent_.size()) {
      return complain(verdict_ ? fmt::format("nothing went out: {}", name_of(verdict_->reason))
                               : "nothing went out");
    }
    const Sent& frame = sent_[next_sent_++];
    const std::string wrong = mismatch(*expected, describe_frame(frame.bytes, frame.offload));
    if (!wrong.empty())
      complain(fmt::format("{}\n  in {}", wrong, packet_line(frame.bytes, Detail::full, frame.offload)));
  }

  void fate(std::string_view text) {
    if (!verdict_) return complain("nothing came in before");
    constexpr std::array<std::string_view, 3> kActions{"transmit", "drop", "pass"};
    const std::string got = fmt::format("{} {}", kActions.at(static_cast<std::size_t>(verdict_->action)),
                                        name_of(verdict_->reason));
    if (got != text) complain(fmt::format("got {}", got));
  }

  /// Before the next thing happens: all that went out was expected, and all that was listed.
  void settle() {
    if (number_ >= lines_.size()) number_ = lines_.size() - 1;
    for (; next_sent_ < sent_.size(); ++next_sent_)
      ADD_FAILURE() << fmt::format(
          "{}:{}: before this line, unexpected:\n  < {}", name_, number_ + 1,
          packet_line(sent_[next_sent_].bytes, Detail::brief, sent_[next_sent_].offload));
    if (lists_ && rows_wanted_ != rows_.size())
      ADD_FAILURE() << fmt::format("{}:{}: expected {} rows, there are:\n    {}", name_, listed_at_ + 1,
                                   rows_wanted_, fmt::join(rows_, "\n    "));
    lists_ = false;
    sent_.clear();
    next_sent_ = 0;
  }

  std::string name_;
  std::vector<std::string> lines_;
  std::size_t number_ = 0;

  Balancer::Options options_{
      .policy = Policy::improved, .seed = 1, .max_connections = 1000, .announce = false};
  SetDevice device_;
  std::vector<Prefix> addresses_;
  std::vector<IpAddress> everybody_;
  std::vector<IpAddress> unknown_;
  std::vector<SetTunable> tuned_;

  std::unique_ptr<Balancer> balancer_;
  Instant now_{1000s};
  std::optional<Verdict> verdict_;  // of what came in last
  std::vector<Sent> sent_;
  std::size_t next_sent_ = 0;
  std::vector<std::string> rows_;  // of the last listing
  std::size_t rows_wanted_ = 0;
  std::size_t listed_at_ = 0;
  bool lists_ = false;
};

class Transcripts : public testing::TestWithParam<std::string> {};

TEST_P(Transcripts, Holds) {
  Transcript(kFolder / (GetParam() + ".txt")).play();
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& file : fs::directory_iterator(kFolder))
    if (file.path().extension() == ".txt") all.push_back(file.path().stem().string());
  std::ranges::sort(all);
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, Transcripts, testing::ValuesIn(names()),
                         [](const testing::TestParamInfo<std::string>& one) { return one.param; });

}  // namespace
}  // namespace director
