// The questions' spelling, and the doubt about the answers: they come over a socket.
#include "director/lookups.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace director {
namespace {

/// As getservbyname(3) knows them; other protocols have no named ports.
std::optional<std::string_view> lower_name(Protocol p) {
  switch (p) {
    case Protocol::tcp:
      return "tcp";
    case Protocol::udp:
      return "udp";
    case Protocol::sctp:
      return "sctp";
    default:
      return {};
  }
}

}  // namespace

const std::optional<std::string>* Lookups::ask(std::string question) {
  static const std::optional<std::string> kNone;
  if (const auto found = answers_.find(question); found != answers_.end()) return &found->second;
  if (!open_) return &kNone;
  if (std::find(missing_.begin(), missing_.end(), question) == missing_.end())
    missing_.push_back(std::move(question));
  return nullptr;
}

std::optional<IpAddress> Lookups::address_of(std::string_view host) {
  const auto* const answer = ask(fmt::format("address {}", host));
  if (answer == nullptr) return IpAddress{};
  return *answer ? IpAddress::parse(**answer) : std::nullopt;
}

std::optional<Port> Lookups::port_of(std::string_view service, Protocol protocol) {
  const auto name = lower_name(protocol);
  if (!name) return {};
  const auto* const answer = ask(fmt::format("port {}/{}", service, *name));
  if (answer == nullptr) return Port{};
  if (!*answer) return {};
  const std::string& text = **answer;
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc{} || end != text.data() + text.size()) return {};
  return Port::of(port);
}

std::optional<std::string> Lookups::text(std::string question) {
  const auto* const answer = ask(std::move(question));
  return answer == nullptr ? std::nullopt : *answer;
}

std::optional<std::string> Lookups::name_of(const IpAddress& address) {
  return text(fmt::format("name {}", format_as(address)));
}

std::optional<std::string> Lookups::service_of(Port port, Protocol protocol) {
  const auto name = lower_name(protocol);
  if (!name) return {};
  return text(fmt::format("service {}/{}", port.host(), *name));
}

std::optional<std::string> Lookups::input() { return text("input"); }

std::optional<std::string> Lookups::file(std::string_view path) { return text(fmt::format("file {}", path)); }

}  // namespace director
