// Result<T, E>: a value or the reason there is none.
//
// The shape of C++23's std::expected, which g++ 12 does not have. Control code returns Result<T> (its error is a
// sentence for people); the packet path returns Result<T, Reason> (an enumerator, no allocation).
// Not for start-up failures: those throw std::runtime_error with a sentence that names the cure.
#pragma once

#include <cassert>
#include <string>
#include <utility>
#include <variant>

namespace director {

/// What went wrong, in words that name the cure.
struct Error {
  std::string message;
};

/// Marks the failing side, so that a Result<int, int> would not be ambiguous.
template <typename E>
struct Failure {
  E error;
};
template <typename E>
Failure(E) -> Failure<E>;

inline Failure<Error> fail(std::string message) { return {Error{std::move(message)}}; }

template <typename T, typename E = Error>
class [[nodiscard]] Result {
 public:
  Result(T value) : either_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit by design
  Result(Failure<E> failure)                                               // NOLINT: implicit by design
      : either_(std::in_place_index<1>, std::move(failure.error)) {}

  explicit operator bool() const { return either_.index() == 0; }
  T& operator*() { return *std::get_if<0>(&either_); }
  const T& operator*() const { return *std::get_if<0>(&either_); }
  T* operator->() { return std::get_if<0>(&either_); }
  const T* operator->() const { return std::get_if<0>(&either_); }
  /// REQUIRES: !*this
  [[nodiscard]] const E& error() const {
    assert(either_.index() == 1);
    return *std::get_if<1>(&either_);
  }

 private:
  std::variant<T, E> either_;
};

template <typename E>
class [[nodiscard]] Result<void, E> {
 public:
  Result() = default;
  Result(Failure<E> failure) : error_(std::move(failure.error)), failed_(true) {}  // NOLINT: implicit by design

  explicit operator bool() const { return !failed_; }
  /// REQUIRES: !*this
  [[nodiscard]] const E& error() const {
    assert(failed_);
    return error_;
  }

 private:
  E error_{};
  bool failed_ = false;
};

}  // namespace director
