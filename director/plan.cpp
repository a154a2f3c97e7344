// A table and what can be done to it, then the difference of two.
#include "director/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "director/core/check.h"

namespace director {
namespace {

using Done = Result<void, Refusal>;

Failure<Refusal> refused(Refusal r) {
  return {r};
}

auto position_of(std::vector<ServerConfig>& servers, const Endpoint& endpoint) {
  return std::find_if(servers.begin(), servers.end(),
                      [&](const ServerConfig& s) { return s.endpoint == endpoint; });
}

// One function for each change, as in core/services.cpp.

Done change(Table& table, const AddService& c) {
  if (table.find(c.config.key) != nullptr) return refused(Refusal::service_exists);
  if (auto bad = check(c.config); !bad) return bad;
  table.services.push_back({c.config, {}});
  return {};
}

Done change(Table& table, const EditService& c) {
  Table::Entry* const entry = table.find(c.config.key);
  if (entry == nullptr) return refused(Refusal::no_such_service);
  if (auto bad = check(c.config); !bad) return bad;
  entry->config = c.config;
  return {};
}

Done change(Table& table, const DeleteService& c) {
  const Table::Entry* const entry = table.find(c.key);
  if (entry == nullptr) return refused(Refusal::no_such_service);
  table.services.erase(table.services.begin() + (entry - table.services.data()));
  return {};
}

Done change(Table& table, const ClearServices&) {
  table.services.clear();
  return {};
}

Done change(Table& table, const AddServer& c) {
  Table::Entry* const entry = table.find(c.service);
  if (entry == nullptr) return refused(Refusal::service_not_defined);
  if (auto bad = check(c.service, c.config); !bad) return bad;
  if (position_of(entry->servers, c.config.endpoint) != entry->servers.end())
    return refused(Refusal::server_exists);
  entry->servers.push_back(c.config);
  return {};
}

Done change(Table& table, const EditServer& c) {
  Table::Entry* const entry = table.find(c.service);
  if (entry == nullptr) return refused(Refusal::service_not_defined);
  if (auto bad = check(c.service, c.config); !bad) return bad;
  const auto server = position_of(entry->servers, c.config.endpoint);
  if (server == entry->servers.end()) return refused(Refusal::no_such_server);
  *server = c.config;
  return {};
}

Done change(Table& table, const DeleteServer& c) {
  Table::Entry* const entry = table.find(c.service);
  if (entry == nullptr) return refused(Refusal::service_not_defined);
  const auto server = position_of(entry->servers, c.endpoint);
  if (server == entry->servers.end()) return refused(Refusal::no_such_server);
  entry->servers.erase(server);
  return {};
}

Done change(Table& table, const SetClasses& c) {
  table.classes = c.rules;
  return {};
}

Done change(Table& table, const AddClassRule& c) { return add_class_rule(table.classes, c.rule); }

Done change(Table& table, const DeleteClass& c) { return delete_class(table.classes, c.mark); }

Done change(Table& table, const ZeroCounters& c) {
  if (c.service && table.find(*c.service) == nullptr) return refused(Refusal::no_such_service);
  return {};
}

Done change(Table& table, const SetTimeouts& c) {
  if (c.tcp > Duration{}) table.timeouts.tcp = c.tcp;
  if (c.tcp_fin > Duration{}) table.timeouts.tcp_fin = c.tcp_fin;
  if (c.udp > Duration{}) table.timeouts.udp = c.udp;
  return {};
}

template <typename Other>
Done change(Table&, const Other&) {
  return {};
}

}  // namespace

Table::Entry* Table::find(const ServiceKey& key) {
  const auto found =
      std::find_if(services.begin(), services.end(), [&](const Entry& e) { return e.config.key == key; });
  return found == services.end() ? nullptr : &*found;
}

const Table::Entry* Table::find(const ServiceKey& key) const {
  return const_cast<Table*>(this)->find(key);
}

Table table_of(const Balancer& balancer) {
  Table table;
  table.classes = balancer.classes().rules();
  const Timeouts& timeouts = balancer.timeouts();
  table.timeouts = {timeouts[State::established], timeouts[State::fin_wait], timeouts[State::udp]};
  for (const Service* service : balancer.services()) {
    Table::Entry entry{service->config, {}};
    for (auto server = service->servers.rbegin(); server != service->servers.rend(); ++server)
      entry.servers.push_back((*server)->config);
    table.services.push_back(std::move(entry));
  }
  return table;
}

Result<void, Refusal> apply(Table& table, const Change& what) {
  return std::visit([&](const auto& c) { return change(table, c); }, what);
}

std::vector<Change> difference(const Table& from, const Table& to) {
  std::vector<Change> changes;
  if (from.classes != to.classes) changes.emplace_back(SetClasses{to.classes});
  for (const Table::Entry& old : from.services)
    if (to.find(old.config.key) == nullptr) changes.emplace_back(DeleteService{old.config.key});

  for (const Table::Entry& wanted : to.services) {
    const ServiceKey& key = wanted.config.key;
    const Table::Entry* const old = from.find(key);
    if (old == nullptr) {
      changes.emplace_back(AddService{wanted.config});
    } else {
      if (old->config != wanted.config) changes.emplace_back(EditService{wanted.config});
      for (const ServerConfig& server : old->servers) {
        const auto same = [&](const ServerConfig& s) { return s.endpoint == server.endpoint; };
        if (std::none_of(wanted.servers.begin(), wanted.servers.end(), same))
          changes.emplace_back(DeleteServer{key, server.endpoint});
      }
    }
    for (const ServerConfig& server : wanted.servers) {
      const ServerConfig* present = nullptr;
      if (old != nullptr)
        for (const ServerConfig& s : old->servers)
          if (s.endpoint == server.endpoint) present = &s;
      if (present == nullptr)
        changes.emplace_back(AddServer{key, server});
      else if (*present != server)
        changes.emplace_back(EditServer{key, server});
    }
  }

  SetTimeouts times;
  for (Duration SetTimeouts::*field : {&SetTimeouts::tcp, &SetTimeouts::tcp_fin, &SetTimeouts::udp})
    if (to.timeouts.*field != from.timeouts.*field) times.*field = to.timeouts.*field;  // 0 keeps
  if (times.tcp != Duration{} || times.tcp_fin != Duration{} || times.udp != Duration{})
    changes.emplace_back(times);
  return changes;
}

std::vector<RulesError> problems_in(std::string_view text) {
  std::vector<RulesError> problems;
  auto rules = parse_rules(text);
  for (std::size_t before = 0; !rules; rules = parse_rules(text)) {  // goes on behind the line that is wrong
    RulesError problem = rules.error();
    for (std::size_t line = 0; line < problem.line; ++line) text.remove_prefix(std::min(text.find('\n'), text.size() - 1) + 1);
    before = problem.line += before;
    problems.push_back(std::move(problem));
  }
  if (!problems.empty()) return problems;
  Table table;
  for (const Rule& rule : *rules)
    if (const auto done = apply(table, rule.change); !done)
      problems.push_back({rule.line, rule.column, std::string{text_of(done.error())}});
  return problems;
}

Result<std::vector<Change>, RulesError> plan_reload(const Balancer& balancer, std::span<const Rule> wanted,
                                                    Classes classes) {
  Table table;
  for (const Rule& rule : wanted) {
    const auto refuse = [&](std::string why) {
      return Failure{RulesError{rule.line, rule.column, std::move(why)}};
    };
    if (const auto done = apply(table, rule.change); !done) return refuse(std::string{text_of(done.error())});
  }
  const bool kept = classes == Classes::kept_unless_said && table.classes.empty();
  if (kept) table.classes = balancer.classes().rules();
  return difference(table_of(balancer), table);
}

Result<void> apply_all(Balancer& balancer, std::span<const Change> changes, Instant now) {
  for (const Change& change : changes)
    if (const auto done = balancer.apply(change, now); !done)
      return fail(fmt::format("{}: {}", command_text(change), text_of(done.error())));
  return {};
}

}  // namespace director
