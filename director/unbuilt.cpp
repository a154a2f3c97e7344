// The list, service by service and server by server.
#include "director/unbuilt.h"

namespace director {
namespace {

std::optional<std::string> missing(const ServiceConfig& service) {
  if (service.key.mark != 0) return "-f: services by mark are not built into this director yet";
  if (service.key.family() == Family::ipv6) return "IPv6 services are not built into this director yet";
  if (service.key.protocol == Protocol::sctp)
    return "--sctp-service: SCTP is not built into this director yet";
  if (service.persistence != Duration{}) return "-p: persistence is not built into this director yet";
  if (service.one_packet) return "-o: one-packet scheduling is not built into this director yet";
  if (!service.persistence_engine.empty())
    return "--pe: persistence engines are not built into this director yet";
  return {};
}

std::optional<std::string> missing(const ServerConfig& server) {
  if (server.endpoint.address.family() == Family::ipv6)
    return "IPv6 real servers are not built into this director yet";
  if (server.method == Method::tunnel && server.tunnel_type != TunnelType::ipip)
    return "--tun-type: of the tunnels only ipip is built into this director yet";
  return {};
}

}  // namespace

std::optional<std::string> unbuilt(const Change& change) {
  if (const auto* c = std::get_if<AddService>(&change)) return missing(c->config);
  if (const auto* c = std::get_if<EditService>(&change)) return missing(c->config);
  if (const auto* c = std::get_if<AddServer>(&change)) return missing(c->config);
  if (const auto* c = std::get_if<EditServer>(&change)) return missing(c->config);
  return {};
}

}  // namespace director
