// Persistence: a client comes back to its server (ipvsadm -p), by *templates*.
//
// A template is a row of the connection table that says "this client network, that virtual service: this server". The first
// connection makes it, later ones are made by it, and each of them starts its time (-p) anew. It is filed under
//   <protocol, client & mask, 0, virtual address, virtual port>      a service of one port
//   <protocol, client & mask, 0, virtual address, 0>                 FTP (port 21 and its data ports), services of port 0
//   <IP,       client & mask, 0, the class's number,  0>             a class: all its ports and protocols stick together
// with --pe sip also under the Call-ID of the SIP message, so that a call stays on its server whoever sends.
//
// When its time is up while connections it made are alive, the kernel renews it for 60 s, again and again. Ours ends it as configured,
// but for FTP, whose data connections have to find the server of their control connection for as long as that lives.
// Source: ip_vs_core.c, ip_vs_sched_persist; ip_vs_conn.c, ip_vs_check_template, ip_vs_conn_expire; ip_vs_pe_sip.c.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "director/base/id.h"
#include "director/core/change.h"
#include "director/net/address.h"

namespace director {

struct Connection;

/// What templates have beyond what a connection has: few rows beside many connections.
class TemplateTable {
 public:
  struct Row {
    Connection* connection = nullptr;  ///< nullptr: it has ended before the connections it made
    std::uint32_t made = 0;            ///< connections that are alive
    bool assured = false;              ///< one of them got an answer
    std::string call_id;               ///< --pe sip
  };

  TemplateId add(Connection& connection, std::string call_id);
  [[nodiscard]] Row& operator[](TemplateId id) { return rows_[id.index]; }
  [[nodiscard]] const Row& operator[](TemplateId id) const { return rows_[id.index]; }
  /// A connection it made has ended.
  void leave(TemplateId id);
  /// The template itself has ended.
  void end(TemplateId id);

  template <typename Visit>
  void for_each(Visit visit) {
    for (Row& row : rows_)
      if (row.connection != nullptr) visit(row);
  }

 private:
  void free_if_unused(TemplateId id);

  std::vector<Row> rows_;
  std::vector<TemplateId> free_;
};

/// The client's address as the service's mask (-M) leaves it.
[[nodiscard]] IpAddress masked_client(const ServiceConfig& service, const IpAddress& client);
/// What a template of the service for a connection of this flow is filed under.
[[nodiscard]] FlowKey template_key(const ServiceConfig& service, const FlowKey& flow);
/// How listings spell a class as an address: 0.0.0.7, or 0:7::.
[[nodiscard]] IpAddress mark_as_address(std::uint32_t mark, Family family);

/// The value of a SIP message's Call-ID header, also as its short form "i" (RFC 3261, 20.8): a word, or word@word. Nothing: there
/// is none, or it is malformed or longer than 255 bytes.
[[nodiscard]] std::optional<std::string_view> sip_call_id(std::span<const std::byte> message);

}  // namespace director
