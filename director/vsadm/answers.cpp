// One function a kind of question.
#include "director/vsadm/answers.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <memory>
#include <system_error>

namespace director::vsadm {
namespace {

using MaybeText = std::optional<std::string>;

/// The first IPv4 address, as ipvsadm takes it.
MaybeText address_of(const std::string& host) {
  addrinfo wanted{};
  wanted.ai_family = AF_INET;
  wanted.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), nullptr, &wanted, &found) != 0) return {};
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> list{found, &freeaddrinfo};
  std::array<char, NI_MAXHOST> text{};
  if (getnameinfo(found->ai_addr, found->ai_addrlen, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST) !=
      0)
    return {};
  return text.data();
}

MaybeText name_of(const std::string& address) {
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  if (inet_pton(AF_INET, address.c_str(), &v4.sin_addr) != 1) return {};
  std::array<char, NI_MAXHOST> name{};
  if (getnameinfo(reinterpret_cast<const sockaddr*>(&v4), sizeof v4, name.data(), name.size(), nullptr, 0,
                  NI_NAMEREQD) != 0)
    return {};
  return name.data();
}

MaybeText port_of(const std::string& service, const std::string& protocol) {
  const servent* const entry = getservbyname(service.c_str(), protocol.c_str());
  if (entry == nullptr) return {};
  return fmt::format("{}", ntohs(static_cast<std::uint16_t>(entry->s_port)));
}

MaybeText service_of(const std::string& port, const std::string& protocol) {
  std::uint16_t number = 0;
  std::from_chars(port.data(), port.data() + port.size(), number);
  const servent* const entry = getservbyport(htons(number), protocol.c_str());
  return entry == nullptr ? MaybeText{} : MaybeText{entry->s_name};
}

Result<MaybeText> read_all(std::FILE* file, std::string_view name) {
  std::string text;
  std::array<char, 65536> buffer;
  std::size_t got = 0;
  while ((got = std::fread(buffer.data(), 1, buffer.size(), file)) > 0) text.append(buffer.data(), got);
  if (std::ferror(file) != 0)
    return fail(fmt::format("{}: {}", name, std::generic_category().message(errno)));
  return MaybeText{std::move(text)};
}

Result<MaybeText> file_text(const std::string& path, std::span<const std::string> words) {
  if (std::find(words.begin(), words.end(), path) == words.end())
    return fail(fmt::format("the director asks for {}, which isn't on the command line: refused", path));
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file{std::fopen(path.c_str(), "r"), &std::fclose};
  if (file == nullptr) return fail(fmt::format("{}: {}", path, std::generic_category().message(errno)));
  return read_all(file.get(), path);
}

}  // namespace

Result<std::optional<std::string>> answer_to(std::string_view question, std::span<const std::string> words) {
  const std::size_t blank = question.find(' ');
  const std::string_view kind = question.substr(0, blank);
  const std::string subject{blank == question.npos ? "" : question.substr(blank + 1)};
  const std::size_t slash = subject.rfind('/');
  const std::string before = subject.substr(0, slash);
  const std::string behind = slash == std::string::npos ? "" : subject.substr(slash + 1);
  if (kind == "address") return address_of(subject);
  if (kind == "name") return name_of(subject);
  if (kind == "port") return port_of(before, behind);
  if (kind == "service") return service_of(before, behind);
  if (kind == "input") return read_all(stdin, "standard input");
  if (kind == "file") return file_text(subject, words);
  return fail(fmt::format(
      "the director asks '{}', which this vsadm doesn't understand: are both of one version?", question));
}

}  // namespace director::vsadm
