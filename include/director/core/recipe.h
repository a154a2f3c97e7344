// Recipe: what all connections from one virtual endpoint to one real server have in common, made once and shared.
//
// Where their packets go, and how they are rewritten on the way there and back; NAT with its checksum differences ready. A
// connection adds its client's endpoint, no more: so both address families have rows of one size, and a million connections to ten
// servers share ten recipes. A recipe lives while a connection has it.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "director/base/id.h"
#include "director/core/change.h"
#include "director/core/forwarder.h"
#include "director/net/address.h"

namespace director {

/// What a recipe is made of. A real server that is edited to another method gets other recipes: each connection goes on as it began.
struct RecipeKey {
  Protocol protocol = Protocol::ip;
  Method method = Method::direct;
  ZeroChecksum zero_checksum = ZeroChecksum::stays;
  Endpoint virtual_;  ///< as the client knows it
  Endpoint real;      ///< where its packets go
  RealId server;
  friend bool operator==(const RecipeKey&, const RecipeKey&) = default;
};

struct Recipe : RecipeKey {
  Forwarder request;  ///< from the client
  Forwarder reply;    ///< from the real server; NAT

  Recipe() = default;
  explicit Recipe(const RecipeKey& key);
};

class RecipeTable {
 public:
  /// The recipe of that key, with one more that has it; made if there is none.
  RecipeId take(const RecipeKey& key);
  /// One less has it. REQUIRES: taken.
  void release(RecipeId id);
  [[nodiscard]] const Recipe& operator[](RecipeId id) const { return chunks_[id.index / kChunk][id.index % kChunk].recipe; }
  [[nodiscard]] std::size_t size() const { return index_.size(); }

 private:
  static constexpr std::uint32_t kChunk = 64;  // recipes never move

  struct Row {
    Recipe recipe;
    std::uint32_t users = 0;
  };
  struct KeyHash {
    std::size_t operator()(const RecipeKey& key) const;
  };
  [[nodiscard]] Row& row(RecipeId id) { return chunks_[id.index / kChunk][id.index % kChunk]; }

  std::vector<std::unique_ptr<Row[]>> chunks_;
  std::vector<RecipeId> free_;
  std::unordered_map<RecipeKey, RecipeId, KeyHash> index_;
};

}  // namespace director
