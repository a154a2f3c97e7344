// The members of every Change, named once for both directions; then the lines.
#include "director/journal.h"

#include <fmt/format.h>

#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <type_traits>
#include <utility>

using Json = nlohmann::json;

// Of the standard library's types nlohmann's must be told in its own namespace.
namespace nlohmann {

template <>
struct adl_serializer<director::Duration> {
  static void to_json(json& j, director::Duration d) { j = d.count(); }
  static void from_json(const json& j, director::Duration& d) { d = director::Duration{j.get<director::Duration::rep>()}; }
};

template <>
struct adl_serializer<director::Instant> {
  static void to_json(json& j, director::Instant t) { j = t.time_since_epoch(); }
  static void from_json(const json& j, director::Instant& t) { t = director::Instant{j.get<director::Duration>()}; }
};

template <typename T>
struct adl_serializer<std::optional<T>> {
  static void to_json(json& j, const std::optional<T>& value) { value ? j = *value : j = nullptr; }
  static void from_json(const json& j, std::optional<T>& value) {
    if (j.is_null()) value.reset();
    else value = j.get<T>();
  }
};

}  // namespace nlohmann

namespace director {

// --- values -----------------------------------------------------------------------------------------------------------

/// The last of an enum that counts from 0. A number beyond it is nobody's, and an index out of some table.
template <typename E>
constexpr auto kLast = std::numeric_limits<std::underlying_type_t<E>>::max();
template <> constexpr auto kLast<Method> = static_cast<std::uint8_t>(Method::direct);
template <> constexpr auto kLast<TunnelType> = static_cast<std::uint8_t>(TunnelType::gre);
template <> constexpr auto kLast<TunnelChecksum> = static_cast<std::uint8_t>(TunnelChecksum::remote);
template <> constexpr auto kLast<HealthCheck::Kind> = static_cast<std::uint8_t>(HealthCheck::Kind::http);
template <> constexpr auto kLast<SyncRole> = static_cast<std::uint8_t>(SyncRole::backup);
template <> constexpr auto kLast<Stack> = static_cast<std::uint8_t>(Stack::own);
template <> constexpr auto kLast<NoServer> = static_cast<std::uint8_t>(NoServer::drop);
template <> constexpr auto kLast<ServerGone> = static_cast<std::uint8_t>(ServerGone::reschedule);
template <> constexpr auto kLast<ServerQuiesced> = static_cast<std::uint8_t>(ServerQuiesced::reschedule);
template <> constexpr auto kLast<State> = static_cast<std::uint8_t>(kStateCount - 1);
template <> constexpr auto kLast<Policy> = static_cast<std::uint8_t>(Policy::kernel);

template <typename E>
  requires std::is_enum_v<E>
void from_json(const Json& j, E& value) {
  const auto number = j.get<std::int64_t>();
  if (number < 0 || number > kLast<E>) throw std::out_of_range(fmt::format("{} is out of range", number));
  value = static_cast<E>(number);
}
inline void from_json(const Json& j, Family& value) {
  value = j.get<int>() == 4 ? Family::ipv4 : j.get<int>() == 6 ? Family::ipv6 : throw std::out_of_range("a family is 4 or 6");
}

template <typename T>
T parsed(const Json& j) {
  const auto value = T::parse(j.get<std::string>());
  if (!value) throw std::invalid_argument(fmt::format("{} is no address", j.dump()));
  return *value;
}
inline void to_json(Json& j, const IpAddress& a) { j = format_as(a); }
inline void from_json(const Json& j, IpAddress& a) { a = parsed<IpAddress>(j); }
inline void to_json(Json& j, const MacAddress& a) { j = format_as(a); }
inline void from_json(const Json& j, MacAddress& a) { a = parsed<MacAddress>(j); }
inline void to_json(Json& j, const Prefix& p) { j = format_as(p); }
inline void from_json(const Json& j, Prefix& p) { p = parsed<Prefix>(j); }
inline void to_json(Json& j, const Port& p) { j = p.host(); }
inline void from_json(const Json& j, Port& p) { p = Port::of(j.get<std::uint16_t>()); }
inline void to_json(Json& j, const Be32& n) { j = n.host(); }
inline void from_json(const Json& j, Be32& n) { n = Be32{j.get<std::uint32_t>()}; }
inline void to_json(Json& j, const DeviceId& id) { j = id ? Json(id.index) : Json(); }
inline void from_json(const Json& j, DeviceId& id) {
  constexpr std::uint32_t kMostDevices = 4096;
  id = DeviceId{};
  if (!j.is_null()) id.index = j.get<std::uint32_t>();
  if (id && id.index >= kMostDevices) throw std::out_of_range(fmt::format("there is no device {}", id.index));
}

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Endpoint, address, port)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(FlowKey, source, target, protocol)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(AddressRange, first, last)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(PortRange, first, last)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ServiceKey, protocol, endpoint, mark)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SchedulerFlags, flag1, flag2, flag3)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(StateTimeout, state, after)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ServicePolicy, no_server, server_gone, server_quiesced, timeouts)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ServiceConfig, key, scheduler, flags, persistence, netmask_length, netmask, one_packet,
                                   persistence_engine, policy)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(HealthCheck, kind, port, path, interval, fall, rise)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ServerConfig, endpoint, method, weight, upper_threshold, lower_threshold, tunnel_type, tunnel_port,
                                   tunnel_checksum, check)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ClassRule, mark, family, protocol, targets, target_ports, sources, source_ports)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Route, destination, device, via, mtu, metric, source)

// --- changes, in the order of change.h --------------------------------------------------------------------------------

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(AddService, config)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(EditService, config)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(DeleteService, key)
inline void to_json(Json& j, const ClearServices&) { j = Json::object(); }
inline void from_json(const Json&, ClearServices&) {}
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(AddServer, service, config)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(EditServer, service, config)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(DeleteServer, service, endpoint)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SetClasses, rules)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(AddClassRule, rule)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(DeleteClass, mark)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ZeroCounters, service)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SetTimeouts, tcp, tcp_fin, udp)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SetTunable, name, value)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(StartDaemon, role, interface, sync_id, maximum_length, group, port, ttl)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(StopDaemon, role)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SetDevice, device, name, mac, mtu, up, stack)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SetAddresses, device, addresses)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SetRoutes, routes)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SetNeighbour, device, address, mac, permanent)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SetForwarding, on)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Carried, flow, packets, bytes, last, let_go)

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Balancer::Options, policy, seed, max_connections, announce, short_way)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Beginning, version, devices, wall_offset, options)

// --- lines ------------------------------------------------------------------------------------------------------------

namespace {

constexpr std::array<const char*, std::variant_size_v<Change>> kChanges{
    "AddService",   "EditService", "DeleteService", "ClearServices", "AddServer",   "EditServer", "DeleteServer",
    "SetClasses",   "AddClassRule", "DeleteClass",  "ZeroCounters",  "SetTimeouts", "SetTunable", "StartDaemon",
    "StopDaemon",   "SetDevice",   "SetAddresses",  "SetRoutes",     "SetNeighbour", "SetForwarding", "Carried"};
constexpr const char* kExpire = "expire";

template <std::size_t... I>
std::optional<Change> change_in(const Json& line, std::index_sequence<I...>) {
  std::optional<Change> change;
  const auto read = [&]<std::size_t i>(std::integral_constant<std::size_t, i>) {
    if (const auto body = line.find(kChanges[i]); body != line.end())
      change.emplace(std::in_place_index<i>, body->template get<std::variant_alternative_t<i, Change>>());
  };
  (read(std::integral_constant<std::size_t, I>{}), ...);
  return change;
}

template <typename T, typename Read>
Result<T> read_line(std::string_view line, Read read) {
  try {
    return T{read(Json::parse(line))};
  } catch (const std::exception& error) {
    return fail(error.what());
  }
}

}  // namespace

std::string journal_line(const Beginning& beginning) { return Json(beginning).dump(); }

std::string journal_line(const Change* change, Instant at) {
  Json line{{"at", at}};
  if (change == nullptr) line[kExpire] = nullptr;
  else std::visit([&](const auto& body) { line[kChanges[change->index()]] = body; }, *change);
  return line.dump();
}

Result<Beginning> parse_beginning(std::string_view line) {
  return read_line<Beginning>(line, [](const Json& json) { return json.get<Beginning>(); });
}

Result<Call> parse_call(std::string_view line) {
  return read_line<Call>(line, [](const Json& json) {
    Call call{json.at("at").get<Instant>(), change_in(json, std::make_index_sequence<std::variant_size_v<Change>>{})};
    if (!call.change && !json.contains(kExpire)) throw std::invalid_argument("neither a change nor expire");
    return call;
  });
}

}  // namespace director
