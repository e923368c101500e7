// JSON, as far as a safetensors header needs it: objects, arrays, strings and whole numbers.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace pippin {

struct Json {
    enum Kind { null, boolean, number, string, array, object };
    Kind kind = null;
    double value = 0;  // of a number; 0 or 1 of a boolean
    std::string text;
    std::vector<Json> items;
    std::map<std::string, Json> fields;

    // Throws Error (with what is wrong) on anything that is not one whole value, on repeated keys, deep nesting and a million values.
    static Json parse(std::string_view source);

    // The field of an object; null value if there is none.
    const Json& operator[](const std::string& name) const;
    // A whole number from 0 to 2^53, or Error.
    int64_t integer() const;
};

}  // namespace pippin
