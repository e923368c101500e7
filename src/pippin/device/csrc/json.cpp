#include "json.h"

#include <cctype>
#include <cmath>
#include <cstdlib>

#include "error.h"

namespace pippin {
namespace {

constexpr int kMaxDepth = 16;
constexpr int64_t kMaxValues = 1 << 20;  // a hundred thousand tensors; each takes some hundred bytes of memory, whatever its text

struct Parser {
    std::string_view source;
    size_t at = 0;
    int64_t values = 0;

    [[noreturn]] void fail(const char* what) const {
        throw Error(std::string(what) + " at byte " + std::to_string(at) + " of its header");
    }

    void skip_space() {
        while (at < source.size() && (source[at] == ' ' || source[at] == '\n' || source[at] == '\t' || source[at] == '\r')) ++at;
    }

    bool take(char c) {
        skip_space();
        if (at >= source.size() || source[at] != c) return false;
        ++at;
        return true;
    }

    void expect(char c) {
        if (!take(c)) fail("not JSON");
    }

    bool take_word(std::string_view word) {
        if (source.substr(at, word.size()) != word) return false;
        at += word.size();
        return true;
    }

    unsigned hex4() {
        unsigned code = 0;
        for (int i = 0; i < 4; ++i, ++at) {
            char c = at < source.size() ? source[at] : ' ';
            int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
            if (digit < 0) fail("not JSON: a bad \\u");
            code = 16 * code + unsigned(digit);
        }
        return code;
    }

    void append_utf8(std::string& out, unsigned code) {
        if (code < 0x80) {
            out += char(code);
        } else if (code < 0x800) {
            out += char(0xC0 | code >> 6);
            out += char(0x80 | (code & 63));
        } else {
            out += char(0xE0 | code >> 12);
            out += char(0x80 | (code >> 6 & 63));
            out += char(0x80 | (code & 63));
        }
    }

    std::string string() {
        expect('"');
        std::string out;
        while (true) {
            if (at >= source.size()) fail("not JSON: a text without end");
            char c = source[at++];
            if (c == '"') return out;
            if (c != '\\') {
                out += c;
                continue;
            }
            char escape = at < source.size() ? source[at++] : ' ';
            switch (escape) {
                case '"': case '\\': case '/': out += escape; break;
                case 'b': out += '\b'; break;
                case 'f': out += '\f'; break;
                case 'n': out += '\n'; break;
                case 'r': out += '\r'; break;
                case 't': out += '\t'; break;
                case 'u': append_utf8(out, hex4()); break;  // halves of a pair stay apart: no name of ours has one
                default: fail("not JSON: a bad escape");
            }
        }
    }

    Json value(int depth) {
        if (depth > kMaxDepth) fail("nested too deep");
        if (++values > kMaxValues) fail("more values than a model has");
        skip_space();
        Json json;
        char c = at < source.size() ? source[at] : ' ';
        if (c == '{') {
            json.kind = Json::object;
            ++at;
            if (take('}')) return json;
            do {
                skip_space();
                std::string name = string();
                expect(':');
                if (!json.fields.emplace(std::move(name), value(depth + 1)).second) fail("a name twice");
            } while (take(','));
            expect('}');
        } else if (c == '[') {
            json.kind = Json::array;
            ++at;
            if (take(']')) return json;
            do json.items.push_back(value(depth + 1));
            while (take(','));
            expect(']');
        } else if (c == '"') {
            json.kind = Json::string;
            json.text = string();
        } else if (take_word("true") || take_word("false")) {
            json.kind = Json::boolean;
            json.value = c == 't';
        } else if (take_word("null")) {
            json.kind = Json::null;
        } else {
            json.kind = Json::number;
            std::string digits;
            while (at < source.size() && (std::isdigit((unsigned char)source[at]) || std::string_view("+-.eE").find(source[at]) != std::string_view::npos))
                digits += source[at++];
            char* end = nullptr;
            json.value = std::strtod(digits.c_str(), &end);
            if (digits.empty() || *end != 0) fail("not JSON");
        }
        return json;
    }
};

}  // namespace

Json Json::parse(std::string_view source) {
    Parser parser{source};
    Json json = parser.value(0);
    parser.skip_space();
    if (parser.at != source.size()) parser.fail("more than one value");
    return json;
}

const Json& Json::operator[](const std::string& name) const {
    static const Json none;
    auto found = fields.find(name);
    return found == fields.end() ? none : found->second;
}

int64_t Json::integer() const {
    if (kind != number || !(value >= 0 && value <= 9007199254740992.0) || value != std::floor(value))
        throw Error("a whole number is missing in its header");
    return int64_t(value);
}

}  // namespace pippin
