// Requests and answers as JSON. Text that isn't UTF-8 is sent with replacement characters: nothing valid needs it.
#include "director/control/message.h"

#include <nlohmann/json.hpp>

namespace director {
namespace {

using Json = nlohmann::json;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// The members of a type that isn't ours to trust: nothing when it is missing or of another type.
template <typename T>
std::optional<T> member(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) return {};
  try {
    return found->get<T>();
  } catch (const Json::exception&) {
    return {};
  }
}

Json parse(std::string_view text) {
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

}  // namespace

std::string encode(const Request& request) {
  Json answers = Json::object();
  for (const auto& [question, answer] : request.answers) answers[question] = answer ? Json(*answer) : Json();
  return dump({{"argv", request.argv}, {"answers", answers}});
}

std::string encode(const Answer& answer) {
  if (!answer.wanted.empty()) return dump({{"wanted", answer.wanted}});
  Json json = {{"out", answer.out}, {"err", answer.err}, {"code", answer.exit_code}};
  if (answer.again) {
    json["again"]["milliseconds"] = std::chrono::ceil<std::chrono::milliseconds>(answer.again->after).count();
    json["again"]["remember"] = answer.again->remember;
  }
  return dump(json);
}

Result<Request> decode_request(std::string_view text) {
  const Json json = parse(text);
  if (!json.is_object()) return fail("not a JSON object");
  Request request;
  const auto argv = member<std::vector<std::string>>(json, "argv");
  if (!argv || argv->empty()) return fail("\"argv\" has to be a list of strings, the program's name first");
  request.argv = *argv;
  if (const auto answers = json.find("answers"); answers != json.end()) {
    if (!answers->is_object()) return fail("\"answers\" has to be an object of strings");
    for (const auto& [question, answer] : answers->items()) {
      if (!answer.is_null() && !answer.is_string()) return fail("\"answers\" has to be an object of strings");
      request.answers[question] = answer.is_null() ? std::nullopt : std::optional{answer.get<std::string>()};
    }
  }
  return request;
}

Result<Answer> decode_answer(std::string_view text) {
  const Json json = parse(text);
  if (!json.is_object()) return fail("not a JSON object");
  Answer answer;
  answer.out = member<std::string>(json, "out").value_or("");
  answer.err = member<std::string>(json, "err").value_or("");
  answer.wanted = member<std::vector<std::string>>(json, "wanted").value_or(std::vector<std::string>{});
  const auto code = member<int>(json, "code");
  if (!code && answer.wanted.empty()) return fail("neither \"code\" nor \"wanted\"");
  answer.exit_code = code.value_or(0);
  if (const auto again = json.find("again"); again != json.end() && again->is_object()) {
    answer.again = Answer::Again{};
    answer.again->after =
        std::chrono::milliseconds{member<std::int64_t>(*again, "milliseconds").value_or(1000)};
    answer.again->remember = member<std::map<std::string, std::string>>(*again, "remember")
                                 .value_or(std::map<std::string, std::string>{});
  }
  return answer;
}

}  // namespace director
