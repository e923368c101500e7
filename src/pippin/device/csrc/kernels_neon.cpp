// 64-bit ARM with the dot product (every Apple M, Cortex-A75 and later). A block of codes is four registers.
#include <arm_neon.h>

#include "kernels.h"

namespace pippin::neon {

#include "vec.h"
#include "isa_neon.h"

struct Isa : Neon {
    static constexpr const char* kName = "neon";
    static constexpr int kTile = 4;
    static constexpr bool kPairs = false;
};

#include "kernels_body.h"

const Kernels& table() { return kTable; }

}  // namespace pippin::neon
