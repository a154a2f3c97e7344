// Reading: the journal's lines among the frames. Doing again: each event through its door, and what leaves held against what left.
#include "director/recording.h"

#include <fmt/format.h>

#include "director/net/format.h"
#include "director/net/offload_text.h"

namespace director {

// --- reading ----------------------------------------------------------------------------------------------------------

Result<Recording> Recording::open(const std::string& file) {
  auto reader = PcapReader::open(file);
  if (!reader) return Failure{reader.error()};
  Recording recording{file, std::move(*reader)};
  const auto first = recording.reader_.next_entry();
  const auto* line = first && *first ? std::get_if<std::string>(&**first) : nullptr;
  if (line == nullptr)
    return fail(fmt::format("{}: it doesn't begin with what the director was told, as recordings of director --pcap do{}; other captures are "
                            "replayed from a folder with rules, case.json and in.pcap",
                            file, first && *first ? " that no other program has written anew" : ""));
  auto beginning = parse_beginning(*line);
  if (!beginning)
    return fail(fmt::format("{}: {}; replay it with the version that recorded it", file, beginning.error().message));
  recording.beginning_ = std::move(*beginning);
  return recording;
}

Result<std::optional<Recording::Event>> Recording::next() {
  auto entry = reader_.next_entry();
  if (!entry && reader_.was_cut_short()) return std::optional<Event>{};
  if (!entry) return Failure{entry.error()};
  if (!*entry) return std::optional<Event>{};
  if (auto* frame = std::get_if<CapturedFrame>(&**entry)) {
    if (frame->interface < beginning_.devices.size()) return std::optional<Event>{std::move(*frame)};
    return fail(fmt::format("{}: a frame of a device that isn't the director's", file_));
  }
  auto call = parse_call(std::get<std::string>(**entry));
  if (!call)
    return fail(fmt::format("{}: {}; replay it with the version that recorded it, {}", file_, call.error().message, beginning_.version));
  if (const auto* device = call->change ? std::get_if<SetDevice>(&*call->change) : nullptr;
      device != nullptr && device->device.index >= beginning_.devices.size())
    return fail(fmt::format("{}: a device that isn't the director's", file_));
  return std::optional<Event>{std::move(*call)};
}

// --- doing it again ---------------------------------------------------------------------------------------------------

namespace {

Balancer::Options with(Balancer::Options options, std::optional<Policy> policy) {
  options.policy = policy.value_or(options.policy);
  return options;
}

bool same(const CapturedFrame& a, const CapturedFrame& b) {
  return a.interface == b.interface && a.bytes == b.bytes && words_of(a.offload) == words_of(b.offload);
}

}  // namespace

Rerun::Rerun(Recording recording, std::optional<Policy> policy)
    : recording_(std::move(recording)),
      replay_(with(recording_.beginning().options, policy), recording_.beginning().wall_offset) {}

Result<std::optional<Replay::Outcome>> Rerun::next() {
  auto event = recording_.next();
  if (!event) return Failure{event.error()};
  if (!*event) {
    end();
    return std::optional<Replay::Outcome>{};
  }
  Replay::Outcome outcome;
  if (const auto* call = std::get_if<Call>(&**event)) {
    outcome = replay_.run(*call);
  } else {
    auto& frame = std::get<CapturedFrame>(**event);
    ++frames_;
    if (frame.direction == CapturedFrame::Direction::outbound) expected_.push_back({frames_, std::move(frame)});
    else outcome = receive(frame);
  }
  sent_ += outcome.sent.size();
  if (!difference_) sent_again_.insert(sent_again_.end(), outcome.sent.begin(), outcome.sent.end());
  compare();
  return std::optional{std::move(outcome)};
}

Replay::Outcome Rerun::receive(const CapturedFrame& frame) {
  ++received_;
  auto outcome = replay_.receive(frame);
  std::string words = words_of(*outcome.verdict, recording_.beginning().devices);
  if (const std::string offload = words_of(frame.offload); !offload.empty()) words += "; " + offload;
  if (words != frame.comment) differs(frames_, frame.comment, words);
  return outcome;
}

/// The core sends in the order of its calls, and what it sends is recorded in that order, at the end of the wake-up at the latest.
void Rerun::compare() {
  for (; !difference_ && !expected_.empty() && !sent_again_.empty(); expected_.pop_front(), sent_again_.pop_front()) {
    const auto& [number, was] = expected_.front();
    const CapturedFrame& is = sent_again_.front();
    if (same(was, is)) continue;
    const auto line = [&](const CapturedFrame& f) {
      return fmt::format("{}: {}", recording_.beginning().devices[f.interface], packet_line(f.bytes, Detail::full, f.offload));
    };
    differs(number, line(was), line(is));
    return;
  }
}

/// A director that was killed may not have recorded what its last call made it send.
void Rerun::end() {
  if (!expected_.empty()) differs(expected_.front().first, "sent", "not sent");
  if (!sent_again_.empty() && sent_again_.front().time < replay_.time())
    differs(frames_, "the last frame", fmt::format("{} more are sent", sent_again_.size()));
}

void Rerun::differs(std::uint64_t frame, std::string_view was, std::string_view is) {
  if (difference_) return;
  difference_ = fmt::format("frame {}: recorded was \"{}\", now it is \"{}\"", frame, was, is);
  expected_.clear();
  sent_again_.clear();
}

}  // namespace director
