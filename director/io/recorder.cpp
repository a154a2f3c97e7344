// pcapng blocks: a section header, an interface description per device, an enhanced packet block per frame, a block of our own per note.
#include "director/io/recorder.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "director/io/clock.h"
#include "director/io/pcap_file.h"
#include "director/log.h"
#include "director/net/offload_text.h"
#include "director/base/startup_error.h"

namespace director {
namespace {

constexpr std::uint32_t kSectionHeader = 0x0a0d0d0a;
constexpr std::uint32_t kInterfaceDescription = 1;
constexpr std::uint32_t kEnhancedPacket = 6;
constexpr std::uint32_t kByteOrderMagic = 0x1a2b3c4d;
constexpr std::uint16_t kEndOfOptions = 0;
constexpr std::uint16_t kComment = 1;
constexpr std::uint16_t kInterfaceName = 2;
constexpr std::uint16_t kTimeResolution = 9;
constexpr std::uint16_t kPacketFlags = 2;
constexpr std::uint16_t kEthernet = 1;  // LINKTYPE_ETHERNET

std::size_t padding(std::size_t size) {
  return (4 - size % 4) % 4;
}

}  // namespace

Recorder::Recorder(const std::string& file, const std::vector<std::string>& device_names)
    : file_(std::fopen(file.c_str(), "wb")),
      name_(file),
      devices_(device_names),
      wall_offset_(clock::wall_offset()) {
  if (!file_)
    throw StartupError(ExitCode::failed,
                       fmt::format("can't write {}: {}; give --pcap a file in a folder that can be written",
                                   file, std::strerror(errno)));
  std::setvbuf(file_.get(), nullptr, _IOFBF, 1U << 20U);

  begin_block(kSectionHeader);
  put(kByteOrderMagic);
  put(std::uint16_t{1});
  put(std::uint16_t{0});
  put(~std::uint64_t{0});  // length of the section: not known beforehand
  constexpr std::string_view kHint = "what a director received and sent; `director replay FILE` does it again";
  put_option(kComment, kHint.data(), kHint.size());
  put_option(kEndOfOptions, nullptr, 0);
  end_block();
  for (const std::string& name : devices_) {
    begin_block(kInterfaceDescription);
    put(kEthernet);
    put(std::uint16_t{0});
    put(std::uint32_t{0});  // no snap length
    put_option(kInterfaceName, name.data(), name.size());
    const std::uint8_t nanoseconds = 9;
    put_option(kTimeResolution, &nanoseconds, 1);
    put_option(kEndOfOptions, nullptr, 0);
    end_block();
  }
  flush();
}

void Recorder::received(const Frame& frame, Instant now) {
  begin_packet(frame, frame.ingress, now);
}

void Recorder::decided(const Verdict& verdict) {
  end_packet(words_of(verdict, devices_) + offload_, Direction::inbound);
}

void Recorder::note(std::string_view text) {
  begin_block(kPcapNote);
  put(text.data(), text.size());
  block_.resize(block_.size() + padding(text.size()), std::byte{' '});
  end_block();
}

void Recorder::sent(const Frame& frame, DeviceId egress, Reason reason, Instant now) {
  begin_packet(frame, egress, now);
  end_packet(fmt::format("{}{}", text_of(reason), offload_), Direction::outbound);
}

void Recorder::begin_packet(const Frame& frame, DeviceId device, Instant now) {
  const auto bytes = frame.bytes();
  const auto time = static_cast<std::uint64_t>((now.time_since_epoch() + wall_offset_).count());
  begin_block(kEnhancedPacket);
  put(device.index);
  put(static_cast<std::uint32_t>(time >> 32U));
  put(static_cast<std::uint32_t>(time));
  put(static_cast<std::uint32_t>(bytes.size()));
  put(static_cast<std::uint32_t>(bytes.size()));
  put(bytes.data(), bytes.size());
  block_.resize(block_.size() + padding(bytes.size()));
  offload_ = words_of(frame.offload);
  if (!offload_.empty()) offload_.insert(0, "; ");
}

void Recorder::end_packet(const std::string& comment, Direction direction) {
  put_option(kComment, comment.data(), comment.size());
  put_option(kPacketFlags, &direction, sizeof direction);
  put_option(kEndOfOptions, nullptr, 0);
  end_block();
}

void Recorder::begin_block(std::uint32_t type) {
  block_.clear();
  put(type);
  put(std::uint32_t{0});  // the length, known at the end
}

void Recorder::end_block() {
  const auto length = static_cast<std::uint32_t>(block_.size() + sizeof(std::uint32_t));
  std::memcpy(block_.data() + sizeof(std::uint32_t), &length, sizeof length);
  put(length);
  if (!file_ || std::fwrite(block_.data(), block_.size(), 1, file_.get()) == 1) return;
  log::error("can't write the recording, it ends here", {{"file", name_}, {"error", std::strerror(errno)}});
  file_.reset();
}

void Recorder::put(const void* data, std::size_t size) {
  const auto* bytes = static_cast<const std::byte*>(data);
  block_.insert(block_.end(), bytes, bytes + size);
}

void Recorder::put_option(std::uint16_t code, const void* data, std::size_t size) {
  put(code);
  put(static_cast<std::uint16_t>(size));
  put(data, size);
  block_.resize(block_.size() + padding(size));
}

void Recorder::flush() {
  if (file_) std::fflush(file_.get());
}

}  // namespace director
