// Replay: the steps of a capture case through the three doors of the core.
#include "director/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "director/command.h"
#include "director/net/packet.h"
#include "director/rules.h"

namespace director {
namespace {

constexpr DeviceId kDevice{0};
/// The capture's clock starts here, not at 0: nothing in the core may depend on time beginning.
constexpr Instant kStart{1h};

/// Typing takes a while: what was just set to 900 s shows as 14:59, as it does for everybody.
constexpr Duration kCommandTakes = 1ms;

Balancer::Options options_of(Policy policy) {
  Balancer::Options options;
  options.policy = policy;
  options.seed = 1;  // the same case gives the same bytes
  options.announce = false;
  return options;
}

}  // namespace

Replay::Replay(const CaptureCase& capture, Policy policy)
    : capture_(capture), balancer_(options_of(policy)), now_(kStart), buffer_(kHeadroom + kMaxFrame) {
  states_wanted_ = std::ranges::any_of(capture_.steps, [](const Step& step) {
    const auto* frame = std::get_if<FrameStep>(&step);
    return frame != nullptr && frame->state_wanted;
  });
}

Result<void> Replay::start() {
  for (const Change& change : capture_.setup)
    if (const auto applied = balancer_.apply(change, now_); !applied)
      return fail(fmt::format("{}: {}", capture_.folder, text_of(applied.error())));
  balancer_.outbox().clear();
  return {};
}

Replay::Outcome Replay::run(const Step& step) {
  Outcome outcome;
  if (const auto* frame = std::get_if<FrameStep>(&step)) {
    for (const std::size_t index : frame->frames) {
      const CapturedFrame& captured = capture_.frames[index];
      advance_to(std::max(now_, kStart + captured.time), outcome);
      receive(*frame, captured, outcome);
    }
  } else if (const auto* sleep = std::get_if<SleepStep>(&step)) {
    advance_to(now_ + sleep->duration, outcome);
  } else if (const auto* sysctl = std::get_if<SysctlStep>(&step)) {
    if (const auto applied = balancer_.apply(sysctl->change, now_); !applied) {
      outcome.text = fmt::format("{}: {}\n", sysctl->change.name, text_of(applied.error()));
      outcome.exit_code = 255;
    }
    collect(outcome);
  } else if (const auto* admin = std::get_if<AdminStep>(&step)) {
    outcome = command(split_rule(admin->command).words);  // takes the leading "ipvsadm" off
  } else if (const auto* list = std::get_if<ListStep>(&step)) {
    outcome = command(list->what == ListStep::What::connections ? std::vector<std::string>{"-L", "-n", "-c"}
                                                                : std::vector<std::string>{"-L", "-n"});
  }
  return outcome;
}

void Replay::advance_to(Instant time, Outcome& outcome) {
  while (balancer_.next_deadline() <= time) {
    now_ = std::max(now_, balancer_.next_deadline());
    balancer_.expire(now_);
    collect(outcome);
  }
  now_ = time;
}

void Replay::receive(const FrameStep& step, const CapturedFrame& captured, Outcome& outcome) {
  Frame frame;
  frame.storage = buffer_;
  frame.start = kHeadroom;
  frame.resize(captured.bytes.size());
  std::memcpy(frame.bytes().data(), captured.bytes.data(), captured.bytes.size());
  frame.ingress = kDevice;
  Frame looked_at = frame;  // parsing cuts padding off
  const auto view = parse_packet(looked_at);

  const Verdict verdict = balancer_.process(frame, now_);
  if (verdict.action == Action::transmit)
    outcome.sent.push_back({now_ - kStart, {frame.bytes().begin(), frame.bytes().end()}, frame.length});
  collect(outcome);
  if (!view || view->kind != PacketView::Kind::ip) return;
  if (states_wanted_) {
    if (step.state_wanted) note_state(step, *view);
  } else if (view->has_ports) {
    note_decision(*view);
  }
}

void Replay::collect(Outcome& outcome) {
  Outbox& outbox = balancer_.outbox();
  for (std::size_t i = 0; i < outbox.size(); ++i) {
    if (!outbox[i].egress) continue;
    const auto bytes = outbox[i].frame.bytes();
    outcome.sent.push_back({now_ - kStart, {bytes.begin(), bytes.end()}, bytes.size()});
  }
  outbox.clear();
}

void Replay::note_decision(const PacketView& view) {
  const bool starts = view.is_udp() || (view.is_tcp() && (view.tcp_flags & TcpHeader::kSyn) != 0);
  if (!starts || balancer_.find_service({view.flow.protocol, view.flow.target, 0}) == nullptr) return;
  if (!decided_.emplace(view.flow.source, view.flow.target, view.flow.protocol).second) return;
  const auto connection = balancer_.find_connection(view.flow, now_);
  decisions_.push_back(fmt::format("{} -> {}", format_as(view.flow.source),
                                   connection ? format_as(connection->real.address) : "-"));
}

void Replay::note_state(const FrameStep& step, const PacketView& view) {
  const auto connection = balancer_.find_connection(view.flow, now_);
  std::string line = fmt::format("{:<45}", step.note);
  line += connection ? fmt::format("{:<12} {}", name_of(connection->state),
                                   std::chrono::ceil<std::chrono::seconds>(connection->remaining).count())
                     : "none";
  decisions_.push_back(std::move(line));
}

Replay::Outcome Replay::command(std::span<const std::string> words) {
  now_ += kCommandTakes;
  Request request;
  request.argv.emplace_back("ipvsadm");
  request.argv.insert(request.argv.end(), words.begin(), words.end());
  Answer answer = run_command(request, balancer_, now_);
  while (!answer.wanted.empty()) {  // nobody can look names up here: addresses stay numbers
    for (const std::string& question : answer.wanted) request.answers.emplace(question, std::nullopt);
    answer = run_command(request, balancer_, now_);
  }
  Outcome outcome{{}, answer.out + answer.err, answer.exit_code};
  collect(outcome);
  return outcome;
}

}  // namespace director
