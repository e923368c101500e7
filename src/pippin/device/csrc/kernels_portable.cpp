// Plain C++: runs everywhere, and is what the other tables are compared with.
#include "kernels.h"

namespace pippin::portable {

#include "vec.h"
#include "scalar.h"

struct Isa : Scalar {
    static constexpr const char* kName = "portable";
};

#include "kernels_body.h"

const Kernels& table() { return kTable; }

}  // namespace pippin::portable
