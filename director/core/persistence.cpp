// Templates: their keys, their rows, and the SIP message's part in it. How the balancer uses them is at the end.
#include "director/core/persistence.h"

#include <algorithm>
#include <cassert>

#include "director/core/balancer.h"
#include "director/net/headers.h"

namespace director {
namespace {

constexpr Port kFtp = Port::of(21);

bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
char lowered(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

/// RFC 3261, 25.1: word.
std::size_t word_length(std::string_view text) {
  constexpr std::string_view kAllowed = "-.!%*_+`'~()<>:\\\"/[]?{}";
  const auto end = std::ranges::find_if_not(
      text, [&](char c) { return is_alpha(c) || is_digit(c) || kAllowed.find(c) != kAllowed.npos; });
  return static_cast<std::size_t>(end - text.begin());
}

/// Takes `name` off the line's front, whatever its case.
bool take_name(std::string_view& line, std::string_view name) {
  if (line.size() < name.size() ||
      !std::ranges::equal(line.substr(0, name.size()), name, {}, lowered, lowered))
    return false;
  line.remove_prefix(name.size());
  return true;
}

void skip_blanks(std::string_view& line) {
  while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
}

std::uint32_t salt_of(std::string_view call_id) {
  std::uint32_t h = 0;  // the table's own hash is keyed; this only spreads the calls of one client
  for (const char c : call_id) h = (h ^ static_cast<std::uint8_t>(c)) * 16777619U + 1;
  return h;
}

}  // namespace

// --- rows -----------------------------------------------------------------------------------------------------------

TemplateId TemplateTable::add(Connection& connection, std::string call_id) {
  TemplateId id{static_cast<std::uint32_t>(rows_.size())};
  if (free_.empty()) {
    rows_.emplace_back();
  } else {
    id = free_.back();
    free_.pop_back();
  }
  rows_[id.index] = {&connection, 0, false, std::move(call_id)};
  return id;
}

void TemplateTable::leave(TemplateId id) {
  assert(rows_[id.index].made > 0);
  --rows_[id.index].made;
  free_if_unused(id);
}

void TemplateTable::end(TemplateId id) {
  rows_[id.index].connection = nullptr;
  free_if_unused(id);
}

void TemplateTable::free_if_unused(TemplateId id) {
  Row& row = rows_[id.index];
  if (row.connection != nullptr || row.made != 0) return;
  row = {};
  free_.push_back(id);
}

// --- keys -----------------------------------------------------------------------------------------------------------

IpAddress masked_client(const ServiceConfig& service, const IpAddress& client) {
  if (client.is_v4()) return IpAddress::v4(client.v4_wire().host() & service.netmask.host());
  return service.netmask_length == 0 ? client : Prefix{client, service.netmask_length}.network();
}

IpAddress mark_as_address(std::uint32_t mark, Family family) {
  if (family == Family::ipv4) return IpAddress::v4(mark);
  std::array<std::uint8_t, 16> bytes{};
  for (std::size_t i = 0; i < 4; ++i) bytes[i] = static_cast<std::uint8_t>(mark >> (24 - 8 * i));
  return IpAddress::v6(bytes);
}

FlowKey template_key(const ServiceConfig& service, const FlowKey& flow) {
  FlowKey key{{masked_client(service, flow.source.address), {}}, {flow.target.address, {}}, flow.protocol};
  if (service.key.mark != 0) {
    key.target.address = mark_as_address(service.key.mark, service.key.family());
    key.protocol = Protocol::ip;
  } else if (flow.target.port == service.key.endpoint.port && service.key.endpoint.port != kFtp) {
    key.target.port = flow.target.port;
  }
  return key;
}

// --- SIP ------------------------------------------------------------------------------------------------------------

std::optional<std::string_view> sip_call_id(std::span<const std::byte> message) {
  constexpr std::size_t kLongest = 255;  // IP_VS_PEDATA_MAXLEN
  std::string_view rest{reinterpret_cast<const char*>(message.data()), message.size()};
  for (;;) {  // every line but the first, which is no header; RFC 2543 ends lines with CR, LF or both
    const std::size_t end = rest.find_first_of("\r\n");
    if (end == rest.npos) return {};
    rest.remove_prefix(end + (rest.substr(end).starts_with("\r\n") ? 2 : 1));
    std::string_view line = rest;
    if (!take_name(line, "call-id") && (!take_name(line, "i") || line.empty() || is_alpha(line.front()))) continue;
    skip_blanks(line);
    if (!line.starts_with(':')) return {};
    line.remove_prefix(1);
    skip_blanks(line);
    std::size_t length = word_length(line);
    if (length != 0 && line.substr(length).starts_with('@')) {
      const std::size_t domain = word_length(line.substr(length + 1));
      if (domain == 0) return {};
      length += 1 + domain;
    }
    const std::string_view after = line.substr(length);
    if (length == 0 || length > kLongest || !(after.starts_with('\r') || after.starts_with('\n'))) return {};
    return line.substr(0, length);
  }
}

// --- the balancer's use of them -------------------------------------------------------------------------------------

Connection* Balancer::find_template(const FlowKey& key, std::string_view call_id) {
  return connections_.find_template(key, salt_of(call_id),
                                    [&](const Connection& c) { return templates_[c.affinity].call_id == call_id; });
}

Connection* Balancer::open_template(const FlowKey& key, std::string_view call_id, RealServer& server, const Endpoint& real,
                                    Instant deadline, Instant now) {
  const RecipeKey recipe = recipe_key(server, key, real);
  Connection* model =
      open_or_make_room(now, [&] { return connections_.open_template(key.source, recipe, salt_of(call_id), deadline); });
  if (model == nullptr) return nullptr;
  model->affinity = templates_.add(*model, std::string{call_id});
  ++server.persistent;
  return model;
}

Result<Balancer::Choice, Reason> Balancer::choose_persistent(Service& service, const FlowKey& flow,
                                                             std::span<const std::byte> payload, Instant now,
                                                             RealServer* only) {
  const ServiceConfig& config = service.config;
  FlowKey key = template_key(config, flow);
  // In the kernel the templates of an FTP service and of a port 0 service at one address are the same, and lead to each other's servers.
  if (options_.policy == Policy::improved && config.key.mark == 0) key.target.port = config.key.endpoint.port;
  std::string_view call_id;
  if (config.persistence_engine == "sip") {
    const auto found = flow.protocol == Protocol::udp ? sip_call_id(payload) : std::nullopt;
    if (!found) return Failure{Reason::no_call_id};
    call_id = *found;
  }
  Connection* model = find_template(key, call_id);
  if (model != nullptr && connections_.is_due(*model, now) && judge(*model, now) == Ending::due) {
    connections_.close(*model);
    model = nullptr;
  }
  const bool other = only != nullptr && model != nullptr && &server_of(*model) != only;
  if (model != nullptr && (other || !template_holds(*model))) {
    drop_template(*model, now);
    model = nullptr;
  }
  if (explains()) tell_template(model, key);
  RealServer* server = nullptr;
  if (model != nullptr) {
    server = &server_of(*model);
  } else {
    server = only != nullptr ? only : pick(service, flow, now);
    if (server == nullptr) return Failure{Reason::no_server};
    const bool whole = flow.target.port == config.key.endpoint.port && config.key.endpoint.port != kFtp;
    const Endpoint real{server->config.endpoint.address, whole ? server->config.endpoint.port : Port{}};
    model = open_template(key, call_id, *server, real, now + config.persistence, now);
    if (model == nullptr) return Failure{Reason::table_full};
    model->set_timeout(config.persistence);
  }
  connections_.set_deadline(*model, now + model->timeout());
  return Choice{server, model->affinity};
}

/// --pe sip with NAT: a call that a server begins, or goes on with from where the client hasn't spoken yet, is a connection as well, and
/// leaves in the virtual service's name (ip_vs_core.c, ip_vs_new_conn_out).
Connection* Balancer::open_from_server(Frame& frame, const PacketView& view, Instant now) {
  if (engines_ == 0 || !view.is_udp() || !view.has_transport || view.fragment) return nullptr;
  for (const auto& service : services_) {
    const ServiceKey& key = service->key();
    if (service->config.persistence_engine.empty() || key.mark != 0 || key.protocol != view.flow.protocol) continue;
    RealServer* server = service->find(view.flow.source);
    if (server == nullptr || server->config.method != Method::masq) continue;
    const FlowKey flow{view.flow.target, key.endpoint, view.flow.protocol};
    const auto payload = frame.bytes().subspan(view.transport + sizeof(UdpHeader));
    const auto choice = choose_persistent(*service, flow, payload, now, server);
    if (!choice || connections_.find(flow)) return nullptr;
    return open(*service, *choice, flow, now);
  }
  return nullptr;
}

/// ip_vs_conn.c, ip_vs_check_template.
bool Balancer::template_holds(const Connection& model) const {
  const RealServer& server = server_of(model);
  if (server.removed() || server.failed()) return false;
  const bool leaves = tunables_.expire_quiescent_template != 0 ||
                      server.service->config.policy.server_quiesced != ServerQuiesced::keep;
  return server.config.weight != 0 || !leaves;
}

/// A template that must not be followed any more. The kernel leaves it in the table for the rest of its time, under port 65535.
void Balancer::drop_template(Connection& model, Instant now) {
  if (options_.policy == Policy::improved) return close(model, now);
  constexpr Port kNobodys = Port::of(65535);
  RecipeKey key = connections_.recipe(model);
  key.virtual_.port = kNobodys;
  key.real.port = kNobodys;
  connections_.refile_template(model, key);
}

/// What becomes of a template whose time is up (ip_vs_conn.c, ip_vs_conn_expire).
Ending Balancer::judge_template(Connection& model, Instant now) {
  constexpr Duration kRenewal = 60s;
  const bool is_ftp = server_of(model).service_key.endpoint.port == kFtp;
  const bool renewed = options_.policy == Policy::kernel || is_ftp;
  if (!renewed || templates_[model.affinity].made == 0) return Ending::due;
  if (options_.policy == Policy::kernel) model.set_timeout(kRenewal);  // and stays so
  connections_.set_deadline(model, now + kRenewal);
  tell_backups_of_template(model.affinity, now);
  return Ending::postponed;
}

void Balancer::end_templates_of(const RealServer& server, Instant now) {
  if (server.persistent == 0) return;
  templates_.for_each([&](TemplateTable::Row& row) {
    if (&server_of(*row.connection) == &server) close(*row.connection, now);
  });
}

/// A connection of the template got an answer.
void Balancer::assure_template(const Connection& connection) {
  if (connection.affinity) templates_[connection.affinity].assured = true;
}

}  // namespace director
