// A LoRA in PEFT's layout, turned into the engine's: for each projection scale * B A x, in 16 bits.
#pragma once
#include <atomic>
#include <string>
#include <vector>

#include "model.h"

namespace pippin {

struct LowRank {
    std::vector<uint16_t> a_values, b_values;
    Half a, b;  // [rank, in] and [out, rank]; groups == 0: this projection is left alone
};

class Adapter {
public:
    // Throws Error with one line on anything that does not fit the model.
    Adapter(const Model& model, const std::string& path, int64_t rank, float scale);

    const int64_t rank;
    const float scale;
    const uint64_t uid;  // no two adapters of a process share one; 0 stands for none
    std::vector<LowRank> parts;  // layer after layer, in the order of `Which`
    const LowRank& part(int64_t layer, int which) const { return parts[size_t(7 * layer + which)]; }
};

}  // namespace pippin
