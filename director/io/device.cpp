// What all devices share: the batch, the --device grammar, the table of kinds.
#include "director/io/device.h"

#include <fmt/format.h>

#include <algorithm>

#include "director/base/startup_error.h"

namespace director {

#define DEVICE(kind)                                                                         \
  std::unique_ptr<Device> make_##kind(const DeviceSpec& spec, const DeviceContext& context); \
  Result<void> check_##kind(const DeviceSpec& spec);
#include "director/io/devices.def"
#undef DEVICE

namespace {

struct Kind {
  std::string_view name;
  std::unique_ptr<Device> (*make)(const DeviceSpec&, const DeviceContext&);
  Result<void> (*check)(const DeviceSpec&);
};

constexpr Kind kKinds[] = {
#define DEVICE(kind) {#kind, make_##kind, check_##kind},
#include "director/io/devices.def"
#undef DEVICE
};

const Kind* find_kind(std::string_view name) {
  const auto* found = std::ranges::find(kKinds, name, &Kind::name);
  return found == std::end(kKinds) ? nullptr : found;
}

/// Interface names as the kernel takes them (net/core/dev.c, dev_valid_name).
bool is_interface_name(std::string_view name) {
  if (name.empty() || name.size() > 15 || name == "." || name == "..") return false;
  return std::ranges::none_of(
      name, [](char c) { return c == '/' || c == ':' || c == ' ' || c == ',' || c < 0x21; });
}

constexpr std::size_t kStride = kHeadroom + kMaxFrame;

}  // namespace

FrameBatch::FrameBatch() : storage_(std::make_unique_for_overwrite<std::byte[]>(kSize * kStride)) {
  for (std::size_t i = 0; i < kSize; ++i) frames_[i].storage = {storage_.get() + i * kStride, kStride};
}

Frame& FrameBatch::open(std::size_t i) {
  Frame& frame = frames_[i];
  frame.start = kHeadroom;
  frame.length = 0;
  frame.ingress = {};
  frame.offload = {};
  return frame;
}

void FrameBatch::keep(std::size_t i) {
  if (i != count_) std::swap(frames_[i], frames_[count_]);  // a frame between them was not kept
  ++count_;
}

Result<DeviceSpec> DeviceSpec::parse(std::string_view text) {
  constexpr std::string_view kShape = "expected [NAME=]KIND:INTERFACE[,key=value...]";
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos) return fail(fmt::format("--device {}: {}", text, kShape));
  DeviceSpec spec;
  std::string_view head = text.substr(0, colon);
  if (const std::size_t equals = head.find('='); equals != std::string_view::npos) {
    spec.name = head.substr(0, equals);
    if (spec.name.empty()) return fail(fmt::format("--device {}: {}", text, kShape));
    head.remove_prefix(equals + 1);
  }
  spec.kind = head;

  std::string_view rest = text.substr(colon + 1);
  const std::size_t comma = rest.find(',');
  spec.interface = rest.substr(0, comma);
  if (!is_interface_name(spec.interface))
    return fail(fmt::format("--device {}: \"{}\" can't be the name of an interface", text, spec.interface));
  if (spec.name.empty()) spec.name = spec.interface;
  rest = comma == std::string_view::npos ? std::string_view{} : rest.substr(comma + 1);
  while (comma != std::string_view::npos) {
    const std::size_t end = rest.find(',');
    const std::string_view setting = rest.substr(0, end);
    const std::size_t equals = setting.find('=');
    if (equals == std::string_view::npos || equals == 0 || equals + 1 == setting.size())
      return fail(fmt::format("--device {}: \"{}\" is not key=value", text, setting));
    spec.settings.emplace_back(setting.substr(0, equals), setting.substr(equals + 1));
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  return spec;
}

Result<void> check_device(const DeviceSpec& spec) {
  if (const Kind* kind = find_kind(spec.kind)) return kind->check(spec);
  std::string known;
  for (const Kind& k : kKinds) known += fmt::format("{}{}", known.empty() ? "" : ", ", k.name);
  return fail(fmt::format("--device: there is no kind \"{}\", only {}", spec.kind, known));
}

std::unique_ptr<Device> make_device(const DeviceSpec& spec, const DeviceContext& context) {
  if (const auto good = check_device(spec); !good) throw StartupError(ExitCode::usage, good.error().message);
  return find_kind(spec.kind)->make(spec, context);
}

}  // namespace director
