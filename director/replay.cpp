// Replay: the steps of a capture case through the three doors of the core.
#include "director/replay.h"

#include <fmt/format.h>

#include <algorithm>

#include "director/command.h"
#include "director/net/packet.h"
#include "director/proc_listing.h"
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

CapturedFrame captured_of(const Frame& frame, DeviceId egress, Duration time) {
  const auto bytes = frame.bytes();
  CapturedFrame captured{time, {bytes.begin(), bytes.end()}, bytes.size()};
  captured.direction = CapturedFrame::Direction::outbound;
  captured.offload = frame.offload;
  captured.interface = egress.index;
  return captured;
}

}  // namespace

Replay::Replay(const Balancer::Options& options, Duration epoch)
    : balancer_(options), epoch_(epoch), buffer_(kHeadroom + kMaxFrame) {}

Replay::Replay(const CaptureCase& capture, Policy policy) : Replay(options_of(policy), -kStart.time_since_epoch()) {
  capture_ = &capture;
  now_ = kStart;
  states_wanted_ = std::ranges::any_of(capture.steps, [](const Step& step) {
    const auto* frame = std::get_if<FrameStep>(&step);
    return frame != nullptr && frame->state_wanted;
  });
}

Result<void> Replay::start() {
  for (const Change& change : capture_->setup)
    if (const auto applied = balancer_.apply(change, now_); !applied)
      return fail(fmt::format("{}: {}", capture_->folder, text_of(applied.error())));
  balancer_.outbox().clear();
  return {};
}

Replay::Outcome Replay::run(const Step& step) {
  Outcome outcome;
  if (const auto* frame = std::get_if<FrameStep>(&step)) {
    for (const std::size_t index : frame->frames) {
      const CapturedFrame& captured = capture_->frames[index];
      advance_to(std::max(now_, kStart + captured.time), outcome);
      receive(*frame, captured, kDevice, capture_->marks[index], outcome);
    }
  } else if (const auto* sleep = std::get_if<SleepStep>(&step)) {
    for (Instant end = now_ + sleep->duration; now_ < end;) {
      const std::size_t sent = outcome.sent.size();
      advance_to(std::min(end, std::max(now_, balancer_.next_deadline())), outcome);
      if (sleep->until_silent && outcome.sent.size() != sent) end = now_ + sleep->duration;
    }
  } else if (const auto* sysctl = std::get_if<SysctlStep>(&step)) {
    if (const auto applied = balancer_.apply(sysctl->change, now_); !applied) {
      outcome.text = fmt::format("{}: {}\n", sysctl->change.name, text_of(applied.error()));
      outcome.exit_code = 255;
    }
    collect(outcome);
  } else if (const auto* admin = std::get_if<AdminStep>(&step)) {
    outcome = type(admin->command);
  } else if (const auto* list = std::get_if<ListStep>(&step)) {
    outcome = command(list->what == ListStep::What::connections ? std::vector<std::string>{"-L", "-n", "-c"}
                                                                : std::vector<std::string>{"-L", "-n"});
  }
  return outcome;
}

Replay::Outcome Replay::run(const Call& call) {
  Outcome outcome;
  now_ = call.at;
  if (call.change) (void)balancer_.apply(*call.change, now_);  // what was refused is refused again
  else balancer_.expire(now_);
  collect(outcome);
  return outcome;
}

Replay::Outcome Replay::receive(const CapturedFrame& frame) {
  Outcome outcome;
  now_ = Instant{frame.time - epoch_};
  receive({}, frame, DeviceId{frame.interface}, 0, outcome);
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

void Replay::receive(const FrameStep& step, const CapturedFrame& captured, DeviceId ingress, std::uint32_t mark,
                     Outcome& outcome) {
  buffer_.resize(std::max(buffer_.size(), kHeadroom + captured.bytes.size()));
  Frame frame = frame_in(buffer_, captured.bytes, captured.offload);
  frame.ingress = ingress;
  frame.mark = mark;
  Frame looked_at = frame;  // parsing cuts padding off
  const auto view = parse_packet(looked_at);

  (void)balancer_.take_choice();
  const Verdict verdict = balancer_.process(frame, now_);
  outcome.verdict = verdict;
  if (verdict.action == Action::transmit) outcome.sent.push_back(captured_of(frame, verdict.egress, time()));
  collect(outcome);
  if (!view || view->kind != PacketView::Kind::ip) return;
  if (states_wanted_) {
    if (step.state_wanted) note_state(step, *view);
  } else if (view->has_ports) {
    note_decision(*view, mark);
  }
}

void Replay::collect(Outcome& outcome) {
  Outbox& outbox = balancer_.outbox();
  for (std::size_t i = 0; i < outbox.size(); ++i) {
    if (outbox[i].egress) outcome.sent.push_back(captured_of(outbox[i].frame, outbox[i].egress, time()));
  }
  outbox.clear();
}

void Replay::note_decision(const PacketView& view, std::uint32_t mark) {
  const bool starts = view.is_udp() || (view.is_tcp() && (view.tcp_flags & TcpHeader::kSyn) != 0);
  const Service* service = starts ? balancer_.find_service(view.flow, mark) : nullptr;
  if (service == nullptr) return;
  const ServiceConfig& config = service->config;
  if (!config.one_packet && !decided_.emplace(view.flow.source, view.flow.target, view.flow.protocol).second) return;
  const auto connection = balancer_.find_connection(view.flow, now_);
  const auto server = connection ? connection->real : balancer_.take_choice();
  // Where servers are chosen for more than one connection it matters where the client went, too; the captures say so of IPv4 only.
  const bool one_target = view.family == Family::ipv6 || (config.key.mark == 0 && config.persistence == Duration{} && !config.one_packet);
  const std::string where = one_target ? "" : " " + format_as(view.flow.target);
  decisions_.push_back(fmt::format("{}{} -> {}", format_as(view.flow.source), where,
                                   server ? format_as(server->address) : "-"));
}

void Replay::note_state(const FrameStep& step, const PacketView& view) {
  const auto connection = balancer_.find_connection(view.flow, now_);
  std::string line = fmt::format("{:<45}", step.note);
  line += connection ? fmt::format("{:<12} {}", name_of(connection->state),
                                   std::chrono::ceil<std::chrono::seconds>(connection->remaining).count())
                     : "none";
  decisions_.push_back(std::move(line));
}

// --- what is typed ---------------------------------------------------------------------------------------------------

namespace {

constexpr std::string_view kPipe = " | ";
constexpr std::string_view kProcNet = "cat /proc/net/";

/// A shell's words: blanks part them, quotes keep them.
std::vector<std::string> shell_words(std::string_view line) {
  std::vector<std::string> words;
  std::optional<std::string> word;
  char quote = 0;
  for (const char c : line) {
    if (quote != 0 ? c == quote : c == '\'' || c == '"') {
      quote = quote == 0 ? c : '\0';
      if (!word) word.emplace();
    } else if (quote == 0 && c == ' ') {
      if (word) words.push_back(std::move(*word));
      word.reset();
    } else {
      if (!word) word.emplace();
      *word += c;
    }
  }
  if (word) words.push_back(std::move(*word));
  return words;
}

}  // namespace

bool Replay::knows(std::string_view line) {
  for (std::size_t pipe = line.find(kPipe); pipe != line.npos; pipe = line.find(kPipe)) {
    if (!knows(line.substr(0, pipe))) return false;
    line.remove_prefix(pipe + kPipe.size());
  }
  if (line.starts_with(kProcNet)) return std::ranges::count(proc_files(), line.substr(kProcNet.size())) != 0;
  const std::string_view program = line.substr(0, line.find(' '));
  return program == "ipvsadm" || program == "ipvsadm-save" || program == "ipvsadm-restore";
}

/// One command after another, each fed with what the one before printed.
Replay::Outcome Replay::type(std::string_view line) {
  if (!knows(line)) return {};  // load_case() has warned
  Outcome outcome;
  for (;;) {
    const std::size_t pipe = line.find(kPipe);
    Outcome one = type_one(line.substr(0, pipe), outcome.text);
    std::ranges::move(one.sent, std::back_inserter(outcome.sent));
    outcome.text = std::move(one.text);
    outcome.exit_code = one.exit_code;
    if (pipe == line.npos) return outcome;
    line.remove_prefix(pipe + kPipe.size());
  }
}

Replay::Outcome Replay::type_one(std::string_view line, const std::string& input) {
  if (line.starts_with(kProcNet)) {
    now_ += kCommandTakes;
    return {{}, proc_text(line.substr(kProcNet.size()), balancer_, now_).value_or(""), 0};
  }
  const std::vector<std::string> words = shell_words(line);
  return command(words.front(), std::span{words}.subspan(1), input);
}

Replay::Outcome Replay::command(std::string_view program, std::span<const std::string> words,
                                const std::string& input) {
  now_ += kCommandTakes;
  Request request;
  request.argv.emplace_back(program);
  request.argv.insert(request.argv.end(), words.begin(), words.end());
  Answer answer = run_command(request, balancer_, now_);
  while (!answer.wanted.empty()) {  // nobody can look names up here: addresses stay numbers
    for (const std::string& question : answer.wanted)
      request.answers.emplace(question, question == "input" ? std::optional{input} : std::nullopt);
    answer = run_command(request, balancer_, now_);
  }
  Outcome outcome{{}, answer.out + answer.err, answer.exit_code};
  collect(outcome);
  return outcome;
}

}  // namespace director
