// One request, in the order it is dealt with: which program, which command, its questions, its changes, its text.
//
// The rule of questions: nothing may be changed while lookups_.missing() has any. All changes go through apply(), which sees to it.
#include "director/command.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "director/command_line.h"
#include "director/diagnose.h"
#include "director/duration_text.h"
#include "director/explain.h"
#include "director/in_a_copy.h"
#include "director/json_listing.h"
#include "director/listing.h"
#include "director/plan.h"
#include "director/preview.h"
#include "director/rules.h"

namespace director {
namespace {

constexpr int kRefusedByGrammar = 2;
constexpr int kRefused = 255;
constexpr int kFailed = 1;

std::string_view base_name(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}

Answer printed(std::string text) {
  return {.out = std::move(text), .err = {}, .exit_code = 0, .wanted = {}, .again = {}};
}
Answer refused(int code, std::string_view message) {
  return {.out = {}, .err = fmt::format("{}\n", message), .exit_code = code, .wanted = {}, .again = {}};
}
Answer refused(const BadCommand& bad) {
  return refused(bad.exit_code, bad.message);
}

/// Changes as command lines, and what each moves.
std::string list_changes(std::span<const std::pair<std::string, Movement>> changes) {
  std::string text;
  for (const auto& [change, movement] : changes) {
    std::vector<std::string> notes;
    if (movement.connections != 0)
      notes.push_back(fmt::format("{} connection{}", movement.connections, movement.connections == 1 ? "" : "s"));
    if (movement.slots != 0) notes.push_back(fmt::format("{} of {} slots move", movement.slots, movement.of_slots));
    text += change + (notes.empty() ? "" : fmt::format("   # {}", fmt::join(notes, ", "))) + "\n";
  }
  return text;
}

class Session {
 public:
  Session(const Request& request, Balancer& balancer, Instant now, std::vector<Change>* done)
      : request_(request), balancer_(balancer), now_(now), lookups_(request.answers), done_(done) {}

  Answer run();
  [[nodiscard]] const std::vector<std::string>& questions() const { return lookups_.missing(); }

 private:
  using WordList = std::span<const std::string>;
  [[nodiscard]] bool asking() const { return !lookups_.missing().empty(); }
  [[nodiscard]] bool as_kernel() const { return balancer_.policy() == Policy::kernel; }

  // ipvsadm's commands.
  Answer perform(const Command& command);
  Answer perform(const Change& change);
  Answer perform(const List& list);
  Answer perform(const Save& save);
  Answer perform(const Restore&);
  Answer perform(const Help&) { return {}; }     // the control tool has printed it
  Answer perform(const Version&) { return {}; }  // likewise
  Answer restore_line_by_line(std::string_view text);
  Answer restore_at_once(std::string_view text);
  Answer list_tables(const List& list);

  // The wrappers' behaviour.
  Answer run_save_script(WordList words);
  Answer run_restore_script();

  // Beyond ipvsadm.
  Answer apply_file(WordList words);
  Answer drain(WordList words);
  Answer drain(const DeleteServer& target, std::optional<Duration> timeout, bool reset, Notation notation);
  Answer doctor(WordList words);
  Answer explain(WordList words);
  Answer reasons(WordList words);
  Answer tune(WordList words);

  /// `told`: how the changes are printed; nothing: not at all.
  Answer reload(std::string_view text, std::string_view file, bool dry_run, std::optional<Notation> told);
  Answer apply(std::span<const Change> changes);
  void note(std::span<const Change> changes) {
    if (done_ != nullptr) done_->insert(done_->end(), changes.begin(), changes.end());
  }

  const Request& request_;
  Balancer& balancer_;
  Instant now_;
  Lookups lookups_;
  std::vector<Change>* done_;
};

// --- which program, which command ------------------------------------------------------------------------------------------

Answer Session::run() {
  const std::string& program = request_.argv.front();
  const WordList words{request_.argv.begin() + 1, request_.argv.end()};
  const std::string_view name = base_name(program);
  if (name == "ipvsadm-save") return run_save_script(words);
  if (name == "ipvsadm-restore") return run_restore_script();

  if (name != "ipvsadm" && !words.empty()) {
    const WordList rest = words.subspan(1);
    if (words[0] == "apply") return apply_file(rest);
    if (words[0] == "drain") return drain(rest);
    if (words[0] == "doctor") return doctor(rest);
    if (words[0] == "explain") return explain(rest);
    if (words[0] == "reasons") return reasons(rest);
    if (words[0] == "tune") return tune(rest);
  }
  const auto command = parse_command(program, words, lookups_);
  return command ? perform(*command) : refused(command.error());
}

Answer Session::perform(const Command& command) {
  return std::visit([&](const auto& c) { return perform(c); }, command);
}

// --- changes ---------------------------------------------------------------------------------------------------------------

Answer Session::perform(const Change& change) {
  if (asking()) return {};
  if (const auto done = balancer_.apply(change, now_); !done) return refused(kRefused, text_of(done.error()));
  note({&change, 1});
  return {};
}

/// Changes that have been worked out on paper.
Answer Session::apply(std::span<const Change> changes) {
  if (asking()) return {};
  if (const auto done = apply_all(balancer_, changes, now_); !done)
    return refused(kRefused, "the change went wrong half way, please report it: " + done.error().message);
  note(changes);
  return {};
}

Answer Session::perform(const Restore&) {
  const auto text = lookups_.input();
  if (!text) return {};
  return as_kernel() ? restore_line_by_line(*text) : restore_at_once(*text);
}

/// As ipvsadm does it: every line is a command of its own. What the table refuses is told, and the next line follows; what the grammar
/// refuses ends it. The exit code is the last line's.
Answer Session::restore_line_by_line(std::string_view text) {
  Answer all;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const Words line = split_rule(text.substr(0, end));
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    if (line.words.empty()) continue;
    const auto command = parse_command(request_.argv.front(), line.words, lookups_);
    const bool again = command && std::holds_alternative<Restore>(*command);
    const Answer one = again     ? refused(try_help(request_.argv.front()))
                       : command ? perform(*command)
                                 : refused(command.error());
    all.out += one.out;
    all.err += one.err;
    all.exit_code = one.exit_code;
    if (!command || again) break;
  }
  return all;
}

/// All lines or none: they are tried on paper, everything that is wrong is told, and only if nothing is they are made true.
Answer Session::restore_at_once(std::string_view text) {
  Table paper = table_of(balancer_);
  std::vector<Change> others;   // that are not about the table
  std::vector<Change> daemons;  // which may be refused still
  Answer answer;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    const Words line = split_rule(text.substr(0, end));
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    if (line.words.empty()) continue;
    const auto tell = [&](int code, std::string_view message) {
      answer.err += fmt::format("line {}: {}\n", number, message);
      answer.exit_code = std::max(answer.exit_code, code);
    };
    const auto command = parse_command(request_.argv.front(), line.words, lookups_);
    if (!command) {
      tell(command.error().exit_code, command.error().message);
      continue;
    }
    const Change* const change = std::get_if<Change>(&*command);
    if (change == nullptr) {
      tell(kRefusedByGrammar, fmt::format("{} changes nothing that could be restored", line.words[0]));
    } else if (const auto done = director::apply(paper, *change); !done) {
      tell(kRefused, text_of(done.error()));
    } else if (std::holds_alternative<ZeroCounters>(*change)) {
      others.push_back(*change);
    } else if (std::holds_alternative<StartDaemon>(*change) || std::holds_alternative<StopDaemon>(*change)) {
      daemons.push_back(*change);
    }
  }
  if (answer.exit_code != 0) {
    answer.err += "nothing was changed\n";
    return answer;
  }
  if (asking()) return {};
  for (const Change& daemon : daemons)  // first: nothing else has changed if one is refused
    if (const auto done = balancer_.apply(daemon, now_); !done)
      return refused(kRefused, fmt::format("{}: {}\nnothing else was changed", command_text(daemon), text_of(done.error())));
  note(daemons);
  std::vector<Change> changes = difference(table_of(balancer_), paper);
  changes.insert(changes.end(), others.begin(), others.end());
  return apply(changes);
}

Answer Session::run_restore_script() {
  const auto text = lookups_.input();
  return text ? reload(*text, "standard input", /*dry_run=*/false, {}) : Answer{};
}

Answer Session::apply_file(WordList words) {
  static constexpr std::string_view kUsage =
      "usage: vsadm apply FILE [--dry-run] [--json]   (FILE - is standard input)";
  std::optional<std::string> file;
  bool dry_run = false;
  Notation notation = Notation::text;
  for (const std::string& word : words) {
    if (word == "--dry-run" || word == "-n")
      dry_run = true;
    else if (word == "--json")
      notation = Notation::json;
    else if (file || (word.size() > 1 && word.starts_with('-')))
      return refused(kRefusedByGrammar, kUsage);
    else
      file = word;
  }
  if (!file) return refused(kRefusedByGrammar, kUsage);
  const bool from_input = *file == "-";
  const auto text = from_input ? lookups_.input() : lookups_.file(*file);
  if (text) return reload(*text, from_input ? "standard input" : *file, dry_run, notation);
  if (asking()) return {};
  return refused(kFailed, fmt::format("{}: can't be read", *file));
}

Answer Session::reload(std::string_view text, std::string_view file, bool dry_run, std::optional<Notation> told) {
  const auto rules = parse_rules(text, lookups_);
  if (asking()) return {};
  if (!rules) return refused(kRefusedByGrammar, rules.error().in(file));
  // ipvsadm-restore brings services back; what it calls marks was never its business.
  const auto changes = plan_reload(balancer_, *rules, told ? Classes::as_said : Classes::kept_unless_said);
  if (!changes) return refused(kRefused, changes.error().in(file));
  Answer answer;
  if (told) {
    Preview preview{balancer_};
    std::vector<std::pair<std::string, Movement>> described;
    for (const Change& change : *changes) described.emplace_back(command_text(change), preview.apply(change));
    answer.out = told == Notation::json ? json_changes(described) : list_changes(described);
  }
  if (dry_run) return answer;
  const Answer applied = apply(*changes);
  return applied.exit_code == 0 ? answer : applied;
}

// --- listings --------------------------------------------------------------------------------------------------------------

Answer Session::perform(const List& list) {
  if (list.notation == Notation::text) return list_tables(list);
  switch (list.table) {
    case List::Table::connections:
      return printed(json_connections(balancer_, now_));
    case List::Table::timeouts:
      return printed(json_timeouts(balancer_.timeouts()));
    case List::Table::classes:
      return printed(json_classes(balancer_.classes()));
    case List::Table::daemons:
      return printed(json_daemons(balancer_));
    case List::Table::services:
      break;
  }
  auto services = balancer_.services();
  if (list.service) {
    const Service* const one = balancer_.find_service(*list.service);
    if (one == nullptr) return refused(kFailed, text_of(Refusal::no_such_service));
    services = {one};
  }
  return printed(json_services(services, balancer_.bucket_count(), list.style.order));
}

Answer Session::list_tables(const List& list) {
  switch (list.table) {
    case List::Table::connections:
      return printed(list_connections(balancer_, now_, list.style, lookups_));
    case List::Table::timeouts:
      return printed(list_timeouts(balancer_.timeouts()));
    case List::Table::classes:
      return printed(list_classes(balancer_.classes()));
    case List::Table::daemons:
      return printed(list_daemons(balancer_));
    case List::Table::services:
      break;
  }
  if (!list.service)
    return printed(list_services(balancer_.services(), balancer_.bucket_count(), list.style, lookups_));
  const Service* const one = balancer_.find_service(*list.service);
  if (one == nullptr) return refused(kFailed, text_of(Refusal::no_such_service));
  return printed(list_service(*one, list.style, lookups_));
}

Answer Session::perform(const Save& wanted) {
  Save save = wanted;
  if (as_kernel() && save.extras == Extras::restorable) save.extras = Extras::left_out;
  return printed(save_rules(balancer_.services(), balancer_.classes(), balancer_.timeouts(), save, lookups_));
}

Answer Session::run_save_script(WordList words) {
  Save save;
  for (const std::string& word : words) {
    if (word == "-n")
      save.addresses = Addresses::numeric;
    else if (word == "--extended")
      save.extras = Extras::included;
    else if (word.starts_with('-'))
      return refused(
          kFailed,
          "ipvsadm-save: prints the table as rules on standard output; -n: numbers instead of names");
  }
  return perform(save);
}

// --- beyond ipvsadm ----------------------------------------------------------------------------------------------------------

Answer Session::doctor(WordList words) {
  const bool as_json = words.size() == 1 && words[0] == "--json";
  if (!words.empty() && !as_json) return refused(kRefusedByGrammar, "usage: vsadm doctor [--json]");
  const auto findings = diagnose(balancer_, now_);
  Answer answer = printed(as_json ? findings_json(findings) : findings_text(findings));
  if (std::ranges::any_of(findings, [](const Finding& f) { return f.weight == Finding::Weight::bad; })) answer.exit_code = kFailed;
  return answer;
}

/// What would become of a packet now: a copy of the process tries it, so that nothing has happened.
Answer Session::explain(WordList words) {
  static constexpr std::string_view kUsage =
      "usage: vsadm explain [--json] [--colour] PACKET...   such as 'tcp 10.0.0.1:4000 > 10.9.0.100:80 [S]'";
  bool json = false;
  Colour colour = Colour::off;
  for (; !words.empty() && words[0].starts_with("-"); words = words.subspan(1)) {
    if (words[0] == "--json") json = true;
    else if (words[0] == "--colour") colour = Colour::on;
    else return refused(kRefusedByGrammar, kUsage);
  }
  if (words.empty()) return refused(kRefusedByGrammar, kUsage);
  for (const std::string& packet : packets_in(words))
    if (const auto built = build_frame(packet, {}, {}); !built) return refused(kRefusedByGrammar, built.error().message);
  const auto said = in_a_copy([&] {
    std::vector<Explained> all;
    std::string text;
    for (const std::string& packet : packets_in(words)) {
      auto one = explain_text(balancer_, packet, now_);
      if (!one) return one.error().message + "\n";
      text += (all.empty() ? "" : "\n") + explanation_text(*one, colour);
      all.push_back(std::move(*one));
    }
    return json ? explanation_json(all) : text;
  });
  return said ? printed(*said) : refused(kFailed, said.error().message);
}

Answer Session::reasons(WordList words) {
  if (words.size() == 1 && words[0] == "--json") return printed(json_reasons(balancer_.counters()));
  if (!words.empty()) return refused(kRefusedByGrammar, "usage: vsadm reasons [--json]");
  return printed(list_reasons(balancer_.counters()));
}

Answer Session::tune(WordList words) {
  if (words.empty()) return printed(list_tunables(balancer_.tunables()));
  const bool as_json = std::ranges::find(words, "--json") != words.end();
  if (words.size() == 1 && as_json) return printed(json_tunables(balancer_.tunables(), {}));
  std::vector<std::string> shown;
  std::vector<Change> changes;
  for (const std::string& word : words) {
    if (word == "--json") continue;
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    if (equals == std::string::npos) {
      const TunableInfo* const knob = find_tunable(name);
      if (knob == nullptr)
        return refused(kRefusedByGrammar, fmt::format("{}: no such knob; vsadm tune lists them", name));
      shown.push_back(name);
      continue;
    }
    const auto knobs = read_tunable(name, std::string_view{word}.substr(equals + 1));
    if (!knobs) return refused(kRefusedByGrammar, knobs.error().message);
    changes.insert(changes.end(), knobs->begin(), knobs->end());
  }
  Answer answer = apply(changes);
  if (answer.exit_code != 0 || shown.empty()) return answer;
  if (as_json) return printed(json_tunables(balancer_.tunables(), shown));
  for (const std::string& name : shown)
    answer.out += fmt::format("{} = {}\n", name, balancer_.tunables().*(find_tunable(name)->value));
  return answer;
}

Answer Session::drain(WordList words) {
  static constexpr std::string_view kUsage =
      "usage: vsadm drain [udp:|sctp:]SERVICE REAL [--timeout SECONDS|5m|1h] [--on-timeout keep|reset] [--json]";
  std::vector<std::string> names;
  std::optional<Duration> timeout;
  bool reset = false;
  Notation notation = Notation::text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const bool has_value = i + 1 < words.size();
    if (words[i] == "--timeout" && has_value) {
      timeout = parse_duration(words[++i]);
      if (!timeout)
        return refused(kRefusedByGrammar,
                       fmt::format("--timeout: expected 30, 30s, 5m or 1h, found '{}'", words[i]));
    } else if (words[i] == "--on-timeout" && has_value &&
               (words[i + 1] == "reset" || words[i + 1] == "keep")) {
      reset = words[++i] == "reset";
    } else if (words[i] == "--json") {
      notation = Notation::json;
    } else if (words[i].starts_with('-')) {
      return refused(kRefusedByGrammar, kUsage);
    } else {
      names.push_back(words[i]);
    }
  }
  if (names.size() != 2) return refused(kRefusedByGrammar, kUsage);

  std::string option = "-t";
  for (const auto& [prefix, letter] : {std::pair{"tcp:", "-t"}, {"udp:", "-u"}, {"sctp:", "--sctp-service"}})
    if (names[0].starts_with(prefix)) {
      option = letter;
      names[0].erase(0, std::string_view{prefix}.size());
      break;
    }
  const std::vector<std::string> removal{"-d", option, names[0], "-r", names[1]};
  const auto command = parse_command(request_.argv.front(), removal, lookups_);
  if (asking()) return {};
  if (!command) return refused(command.error());
  return drain(std::get<DeleteServer>(std::get<Change>(*command)), timeout, reset, notation);
}

/// One look at a server that is being drained. The control tool calls again until it is gone or the time is up; what it has to bring
/// along is when the drain began. Nothing is remembered here: a tool that goes away leaves a server of weight 0.
Answer Session::drain(const DeleteServer& target, std::optional<Duration> timeout, bool reset, Notation notation) {
  const Service* const service = balancer_.find_service(target.service);
  if (service == nullptr) return refused(kRefused, text_of(Refusal::service_not_defined));
  const RealServer* const server = service->find(target.endpoint);
  if (server == nullptr) return refused(kRefused, text_of(Refusal::no_such_server));
  const std::string name = format_as(target.endpoint);
  const auto present = std::to_string(now_.time_since_epoch().count());

  std::map<std::string, std::string> remember;
  for (const auto* key : {"drain began", "drain told"})
    if (const auto found = request_.answers.find(key); found != request_.answers.end() && found->second)
      remember[key] = *found->second;
  Instant began = now_;
  if (const auto found = remember.find("drain began"); found != remember.end()) {
    std::int64_t count = 0;
    std::from_chars(found->second.data(), found->second.data() + found->second.size(), count);
    began = Instant{Duration{count}};
  }
  remember.try_emplace("drain began", present);

  if (server->config.weight != 0) {
    ServerConfig quiesced = server->config;
    quiesced.weight = 0;
    if (Answer changed = apply(std::array{Change{EditServer{target.service, quiesced}}});
        changed.exit_code != 0)
      return changed;
  }
  const std::uint32_t left = server->connections();
  if (left == 0) {
    Answer answer = apply(std::array{Change{target}});
    if (answer.exit_code == 0)
      answer.out = notation == Notation::json ? json_drain(name, 0, 0, "removed")
                                              : fmt::format("{}: no connections left, removed\n", name);
    return answer;
  }
  const bool over = timeout && now_ - began >= *timeout;
  const std::string state =
      notation == Notation::json
          ? json_drain(name, server->active, server->inactive, !over ? "draining" : reset ? "reset" : "kept")
          : fmt::format("{}: {} active and {} inactive connections left\n", name, server->active, server->inactive);
  if (over) {
    if (!reset)
      return {.out = state,
              .err = fmt::format("{} keeps them, with weight 0 (vsadm -d removes it)\n", name),
              .exit_code = kFailed,
              .wanted = {},
              .again = {}};
    const std::int64_t before = balancer_.tunables().expire_nodest_conn;
    Answer answer = apply(std::array{Change{SetTunable{"expire_nodest_conn", 1}}, Change{target},
                                     Change{SetTunable{"expire_nodest_conn", before}}});
    if (answer.exit_code == 0)
      answer.out =
          notation == Notation::json ? state : state + fmt::format("{}: removed, and {} connections ended\n", name, left);
    return answer;
  }
  Answer answer;
  std::string& told = remember["drain told"];
  if (told != state) answer.out = state;
  told = state;
  Duration wait = 500ms;
  if (timeout) wait = std::min(wait, *timeout - (now_ - began));
  answer.again = Answer::Again{wait, std::move(remember)};
  return answer;
}

}  // namespace

Answer run_command(const Request& request, Balancer& balancer, Instant now, std::vector<Change>* done) {
  Session session(request, balancer, now, done);
  Answer answer = session.run();
  if (session.questions().empty()) return answer;
  Answer question;
  question.wanted = session.questions();
  return question;
}

std::string serve_command(std::string_view message, Balancer& balancer, Instant now, std::vector<Change>* done) {
  const auto request = decode_request(message);
  if (!request) return encode(refused(kRefusedByGrammar, "control socket: " + request.error().message));
  return encode(run_command(*request, balancer, now, done));
}

}  // namespace director
