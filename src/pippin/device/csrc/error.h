// The one exception of the engine; the C interface turns it into a message.
#pragma once
#include <stdexcept>
#include <string>

namespace pippin {

struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace pippin
