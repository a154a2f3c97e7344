// What the packet path tells who asks for an explanation: each function is one decision, in words. Called by balancer.cpp where the
// decision is taken, with what it was taken from.
#include <fmt/format.h>

#include <algorithm>

#include "director/core/balancer.h"
#include "director/net/ip_header.h"

namespace director {
namespace {

std::string seconds(Duration d) {
  const double s = std::chrono::duration<double>(d).count();
  return s >= 10 ? fmt::format("{:.0f} s", s) : fmt::format("{:.3g} s", s);
}

std::string_view name_of(Method m) {
  switch (m) {
    case Method::masq: return "NAT";
    case Method::tunnel: return "tunnel";
    case Method::direct: break;
  }
  return "direct routing";
}

std::string_view name_of(TunnelType t) {
  switch (t) {
    case TunnelType::gue: return "gue";
    case TunnelType::gre: return "gre";
    case TunnelType::ipip: break;
  }
  return "ipip";
}

std::string in_words(const ServiceKey& key) {
  return key.mark != 0 ? fmt::format("class {}", key.mark) : fmt::format("{} {}", format_as(key.protocol), format_as(key.endpoint));
}

}  // namespace

Verdict Balancer::explain(Frame& frame, Instant now, Explanation& to) {
  explanation_ = &to;
  const Verdict verdict = process(frame, now);
  explanation_ = nullptr;
  return verdict;
}

std::optional<DeviceId> Balancer::device_towards(const IpAddress& address) {
  const RouteTo* way = network_.route(address);
  if (way == nullptr || way->local) return {};
  return network_.hop(way->hop).egress;
}

void Balancer::tell_step(std::string_view topic, std::string says, std::vector<std::pair<std::string_view, std::string>> facts) {
  explanation_->steps.push_back({topic, std::move(says), std::move(facts), {}});
}

void Balancer::tell_unreadable(const Frame& frame, Reason reason) {
  tell_step("packet", fmt::format("{} bytes that can't be read: {}", frame.length, text_of(reason)),
            {{"reason", std::string{director::name_of(reason)}}});
}

void Balancer::tell_packet(const Frame& frame, const PacketView& view) {
  const Interface& in = *network_.find(frame.ingress);
  std::string says = fmt::format("{} {}, {} bytes, by {}", view.family == Family::ipv4 ? "IPv4" : "IPv6",
                                 view.kind == PacketView::Kind::arp         ? "ARP"
                                 : view.kind == PacketView::Kind::neighbour ? "neighbour discovery"
                                                                            : format_as(view.flow.protocol),
                                 frame.length - view.network, in.name);
  if (view.fragment)
    says += fmt::format(", {} fragment at byte {}", view.later_fragment ? "a later" : "the first", view.fragment_offset);
  if (frame.offload.segments != Offload::Segments::none)
    says += fmt::format(", a super-frame of {}-byte segments", frame.offload.segment_size);
  if (frame.offload.checksum == Offload::Checksum::partial) says += ", its checksum left to the device";
  tell_step("packet", std::move(says),
            {{"device", in.name}, {"source", format_as(view.flow.source)}, {"target", format_as(view.flow.target)}});
}

void Balancer::tell_connection(const Connection& c, Direction direction, Instant now) {
  const Recipe& r = connections_.recipe(c);
  const bool due = connections_.is_due(c, now);
  tell_step("connection",
            fmt::format("a packet of the {} of {} -> {} -> {}, {}, {}", direction == Direction::request ? "client" : "real server",
                        format_as(c.client), format_as(r.virtual_), format_as(r.real), director::name_of(c.state),
                        due ? "whose time is up: it ends here" : fmt::format("{} left", seconds(connections_.deadline(c) - now))),
            {{"client", format_as(c.client)},
             {"virtual", format_as(r.virtual_)},
             {"real", format_as(r.real)},
             {"direction", direction == Direction::request ? "request" : "reply"},
             {"state", std::string{director::name_of(c.state)}}});
}

void Balancer::tell_opened(const Connection& c) {
  const Recipe& r = connections_.recipe(c);
  tell_step("connection", fmt::format("opened: {} -> {} -> {}", format_as(c.client), format_as(r.virtual_), format_as(r.real)),
            {{"client", format_as(c.client)}, {"virtual", format_as(r.virtual_)}, {"real", format_as(r.real)}});
}

/// Which of service_for()'s ways found it, or that none did.
void Balancer::tell_service(const Service* service, const FlowKey& flow, std::uint32_t mark) {
  const std::uint32_t given = mark;
  if (mark == 0 && !classes_.empty()) mark = classes_.classify(flow);
  if (mark != 0)
    tell_step("class", given != 0 ? fmt::format("the frame carries mark {}", mark) : fmt::format("class {}, by the classes' rules", mark),
              {{"class", fmt::format("{}", mark)}});
  if (service == nullptr) {
    const bool ours = is_virtual(flow.target.address);
    tell_step("service", fmt::format("none wants {} {}: {} is {}", format_as(flow.protocol), format_as(flow.target), format_as(flow.target.address),
                                     ours ? "a virtual address, but has no service for that" : "no virtual address"));
    return;
  }
  const ServiceKey& key = service->key();
  const std::string_view how = key.mark != 0                          ? "by its class"
                               : key.endpoint.port == flow.target.port ? "by its address and port"
                               : key.endpoint.port == Port{}           ? "it serves every port of the address"
                                                                       : "it serves FTP's data connections too";
  tell_step("service",
            fmt::format("{}, {}; scheduler {}{}", in_words(key), how, service->config.scheduler,
                        service->config.persistence != Duration{}
                            ? fmt::format(", persistent for {}", seconds(service->config.persistence))
                            : ""),
            {{"service", in_words(key)}, {"found", std::string{how}}, {"scheduler", service->config.scheduler}});
}

void Balancer::tell_template(const Connection* model, const FlowKey& key) {
  if (model == nullptr)
    return tell_step("persistence", fmt::format("{} has no template: it gets one of the server chosen now", format_as(key.source.address)),
                     {{"client", format_as(key.source.address)}});
  const Endpoint& real = server_of(*model).config.endpoint;
  tell_step("persistence", fmt::format("{} came before: its template leads to {}, whatever the scheduler would say",
                        format_as(key.source.address), format_as(real)),
            {{"client", format_as(key.source.address)}, {"server", format_as(real)}});
}

/// Before the scheduler picks: what it looks at changes when it has picked.
void Balancer::tell_candidates(const Service& service, const FlowKey& flow) {
  const ServiceConfig& config = service.config;
  std::string says = fmt::format("{} takes {}", config.scheduler, words_of_scheduler(config.scheduler).takes);
  std::vector<const RealServer*> slots = service.scheduler->slots();
  const auto slot = service.scheduler->slot_of(flow);
  if (slot && !slots.empty()) says += fmt::format("; this one's slot is {} of {}", *slot, slots.size());
  tell_step("scheduler", std::move(says), {{"scheduler", config.scheduler}});
  for (const RealServer* s : service.servers) {
    std::string standing = service.scheduler->standing(*s);
    if (slot && !slots.empty())
      standing = fmt::format("{} slots{}", std::ranges::count(slots, s), slots[*slot] == s ? ", this one's among them" : "");
    explanation_->steps.back().candidates.push_back(
        {s->config.endpoint, s->config.weight, s->active, s->inactive, std::move(standing), false, {}});
  }
}

void Balancer::tell_pick(const Service& service, const RealServer* taken) {
  Explanation::Step& step = explanation_->steps.back();
  for (std::size_t i = 0; i < service.servers.size(); ++i) {
    const RealServer& s = *service.servers[i];
    Explanation::Candidate& candidate = step.candidates[i];
    candidate.taken = &s == taken;
    candidate.why = candidate.taken         ? "taken"
                    : s.failed()           ? fmt::format("its health check failed: {}", s.health->says)
                    : s.config.weight == 0 ? "weight 0: takes nobody new"
                    : s.overloaded         ? fmt::format("overloaded: {} connections, its upper threshold is {}", s.connections(),
                                                         s.config.upper_threshold)
                                           : std::string{words_of_scheduler(service.config.scheduler).passes_over};
  }
  if (taken == nullptr) step.says += service.servers.empty() ? "; there is no server" : "; nobody can be taken";
  step.facts.emplace_back("server", taken != nullptr ? format_as(taken->config.endpoint) : "none");
}

void Balancer::tell_state(const Connection& c, State before) {
  tell_step("state",
            before == c.state ? fmt::format("stays {}", director::name_of(c.state))
                              : fmt::format("{} -> {}", director::name_of(before), director::name_of(c.state)),
            {{"before", std::string{director::name_of(before)}}, {"after", std::string{director::name_of(c.state)}}});
  auto& step = explanation_->steps.back();
  step.says += fmt::format(", ends after {} of silence", seconds(c.timeout()));
  step.facts.emplace_back("timeout", seconds(c.timeout()));
}

void Balancer::tell_forwarding(const Connection& c, Direction direction, const Frame& frame) {
  const Recipe& r = connections_.recipe(c);
  const bool request = direction == Direction::request;
  const Forwarder& recipe = request ? r.request : r.reply;
  if (const auto* nat = std::get_if<Nat>(&recipe)) {
    tell_step("forward", fmt::format("{}: the {} becomes {}", name_of(Method::masq), request ? "target" : "source", format_as(nat->replacement)),
              {{"method", "masq"}});
    const bool partial = frame.offload.checksum == Offload::Checksum::partial;
    tell_step("checksum", partial ? "the transport's is left to the device: its pseudo header's sum follows the addresses"
                                  : "the transport's is changed by what changed below it (RFC 1624), not summed anew");
  } else if (const auto* tunnel = std::get_if<Tunnel>(&recipe)) {
    tell_step("forward", fmt::format("{}: {} in front, to {}", name_of(Method::tunnel),
                                     name_of(server_of(c).config.tunnel_type), format_as(tunnel->remote)),
              {{"method", "tunnel"}, {"type", std::string{name_of(server_of(c).config.tunnel_type)}}});
  } else {
    tell_step("forward", fmt::format("{}: addresses stay, the target MAC becomes the server's", name_of(Method::direct)),
              {{"method", "direct"}});
  }
}

void Balancer::tell_hop(const RouteTo& way) {
  if (!explanation_->steps.empty() && explanation_->steps.back().topic == "hop") return;  // the next piece of the same packet
  const Hop& hop = network_.hop(way.hop);
  const Interface& out = *network_.find(hop.egress);
  std::string_view state = "is asked for";
  std::string mac;
  switch (hop.state) {
    case Hop::State::reachable: mac = format_as(hop.mac); state = "known"; break;
    case Hop::State::failed: state = "doesn't answer"; break;
    case Hop::State::unused:
    case Hop::State::asking: break;
  }
  tell_step("hop", fmt::format("by {} to {}, {}; MTU {}", out.name, format_as(hop.via),
                               mac.empty() ? fmt::format("whose MAC {}", state) : fmt::format("MAC {}", mac), way.mtu),
            {{"device", out.name}, {"via", format_as(hop.via)}, {"mac", mac}, {"neighbour", std::string{state}},
             {"mtu", fmt::format("{}", way.mtu)}});
}

void Balancer::tell_verdict(const Verdict& verdict) {
  std::string says;
  switch (verdict.action) {
    case Action::transmit: says = fmt::format("sent by {}", network_.find(verdict.egress)->name); break;
    case Action::drop: says = "this frame ends here"; break;
    case Action::pass: says = "left to the host's own stack"; break;
  }
  says += fmt::format(": {}", text_of(verdict.reason));
  const char* action = verdict.action == Action::transmit ? "transmit" : verdict.action == Action::drop ? "drop" : "pass";
  tell_step("verdict", std::move(says), {{"action", action}, {"reason", std::string{director::name_of(verdict.reason)}}});
}

}  // namespace director
