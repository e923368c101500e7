// Opens mutated model and adapter files. Each is refused with one line of text, or gives something that a short
// answer can be computed with; the sanitizers that this is built with watch.
//
//   fuzz_loader MODEL CONFIG ADAPTER RANK SEED COUNT
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <set>

#include "common.h"

// A page of a mapped file goes on behind the file's end, and what is read there goes unnoticed. So the engine's files
// are in memory that ends where they end, watched on both sides, and that is missed if it is not given back.
static std::set<void*> files;

extern "C" __attribute__((visibility("default"))) void* mmap(void* at, size_t size, int rights, int flags, int file, off_t offset) noexcept {
    if (file < 0) return reinterpret_cast<void*>(syscall(SYS_mmap, at, size, rights, flags, file, offset));
    void* memory = std::malloc(size);
    if (memory == nullptr || pread(file, memory, size, 0) != ssize_t(size)) fail("a file cannot be read");
    files.insert(memory);
    return memory;
}

extern "C" __attribute__((visibility("default"))) int munmap(void* memory, size_t size) noexcept {
    if (files.erase(memory) == 0) return int(syscall(SYS_munmap, memory, size));
    std::free(memory);
    return 0;
}

namespace {

const char* const kNumbers[] = {"0",  "-1", "1", "2", "7", "16", "255", "65536", "4294967295", "4294967296", "9007199254740992", "9007199254740993",
                                "18446744073709551616", "1e300", "1e-3", "2.5", "-0", "1e999", "null", "[]", "{}", "\"8\"", "[[[[[[[[[[[[[[[[[[[["};
const char* const kPieces[] = {"{", "}", "[", "]", ",", ":", "\"", "\"\\u", "\\u0000", "\\ud800", "\"dtype\":", "\"shape\":", "\"data_offsets\":", "\"U8\"", "\"I8\"", "\"F16\"",
                               "\"BF16\"", "\"F32\"", "\"F64\"", "\"__metadata__\":{},", "\x1b[2J", "\n", "true", "\xff\xfe"};
const uint32_t kWords[] = {0, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF, 0x00000001, 0x80000000, 0x7C007C00, 0x7BFF7BFF, 0x80808080, 0xFFFFFFFF};

uint64_t header_length(const std::string& file) {
    uint64_t length = 0;
    if (file.size() >= 8) std::memcpy(&length, file.data(), 8);
    return length;
}

void set_length(std::string& file, uint64_t length) {
    if (file.size() >= 8) std::memcpy(&file[0], &length, 8);
}

// Replaces a part of the header and, mostly, corrects its length, so that what lies behind the first check is reached.
void splice(std::string& file, size_t at, size_t n, const std::string& with, Random& random) {
    const uint64_t before = header_length(file);
    file.replace(at, n, with);
    if (random.below(8)) set_length(file, before + with.size() - n);
}

void mutate_header(std::string& file, Random& random) {
    const size_t end = 8 + size_t(header_length(file));
    if (end > file.size() || end < 10) return;
    std::vector<size_t> numbers, quotes;
    for (size_t i = 8; i < end; ++i) {
        if (file[i] >= '0' && file[i] <= '9' && (file[i - 1] == '[' || file[i - 1] == ',')) numbers.push_back(i);
        if (file[i] == '"') quotes.push_back(i);
    }
    switch (random.below(7)) {
        case 0: {  // another number, from the list or near the old one; often of the last tensor, behind which is nothing
            if (numbers.empty()) return;
            size_t at = numbers[size_t(random.below(int64_t(numbers.size())))];
            const size_t last = file.find("," + std::to_string(file.size() - end) + "]");
            if (last < end && random.below(2)) at = *(std::upper_bound(numbers.begin(), numbers.end(), last + 1) - (random.below(2) ? 1 : 2));
            size_t n = 0;
            while (at + n < end && file[at + n] >= '0' && file[at + n] <= '9') ++n;
            std::string with = kNumbers[random.below(std::size(kNumbers))];
            if (random.below(2)) with = std::to_string(std::atoll(file.substr(at, n).c_str()) + random.below(129) - 64);
            return splice(file, at, n, with, random);
        }
        case 1:  // a piece of JSON anywhere
            return splice(file, 8 + size_t(random.below(int64_t(end - 8))), size_t(random.below(4)), kPieces[random.below(std::size(kPieces))], random);
        case 2: {  // a part of the header twice: names twice, tensors over each other
            const size_t from = quotes.empty() ? 9 : quotes[size_t(random.below(int64_t(quotes.size())))];
            const size_t n = std::min<size_t>(end - from, size_t(random.below(200)));
            return splice(file, quotes.empty() ? 9 : quotes[size_t(random.below(int64_t(quotes.size())))], 0, file.substr(from, n), random);
        }
        case 3: {  // a text for another: types, and names of the other tensors
            if (quotes.size() < 4) return;
            const size_t a = size_t(random.below(int64_t(quotes.size()) / 2)) * 2, b = size_t(random.below(int64_t(quotes.size()) / 2)) * 2;
            const std::string with = file.substr(quotes[b], quotes[b + 1] - quotes[b]);
            return splice(file, quotes[a], quotes[a + 1] - quotes[a], with, random);
        }
        case 4: {  // two texts exchanged: tensors of other types and shapes under each other's names
            if (quotes.size() < 4) return;
            size_t a = size_t(random.below(int64_t(quotes.size()) / 2)) * 2, b = size_t(random.below(int64_t(quotes.size()) / 2)) * 2;
            if (a > b) std::swap(a, b);
            const std::string first = file.substr(quotes[a], quotes[a + 1] - quotes[a]), second = file.substr(quotes[b], quotes[b + 1] - quotes[b]);
            if (a == b) return;
            file.replace(quotes[b], second.size(), first), file.replace(quotes[a], first.size(), second);
            return;
        }
        case 5: {  // a part left out
            const size_t from = 8 + size_t(random.below(int64_t(end - 8)));
            return splice(file, from, std::min<size_t>(end - from, size_t(random.below(120))), "", random);
        }
        default:
            file[8 + size_t(random.below(int64_t(end - 8)))] = char(random.next());
    }
}

std::string mutated(const std::string& whole, Random& random) {
    std::string file = whole;
    for (int64_t n = 1 + random.below(3); n > 0; --n) {
        const size_t header = std::min(file.size(), 8 + size_t(header_length(whole)));
        switch (random.below(10)) {
            case 0:
                file.resize(random.below(4) ? size_t(random.below(int64_t(file.size()) + 1)) : header);
                if (file.size() <= header && random.below(2)) {  // a whole header that breaks off
                    if (random.below(2)) file += random.below(2) ? "\"\\u0" : "\"\\";
                    set_length(file, file.size() - 8);
                }
                break;
            case 1: file.append(size_t(random.below(300)), char(random.next())); break;
            case 2: {
                const uint64_t lengths[] = {0, 1, file.size() - 8, file.size(), uint64_t(1) << 32, ~uint64_t(0), uint64_t(1) << 63, header_length(file) + uint64_t(random.below(65)) - 32};
                set_length(file, lengths[random.below(std::size(lengths))]);
                break;
            }
            case 3:  // one bit anywhere
                if (!file.empty()) file[size_t(random.below(int64_t(file.size())))] ^= char(1 << random.below(8));
                break;
            case 4: {  // values that float formats have for special purposes
                if (file.size() < header + 8) break;
                const size_t at = header + size_t(random.below(int64_t((file.size() - header) / 4))) * 4;
                for (int64_t i = 1 + random.below(16); i > 0 && at + size_t(i) * 4 <= file.size(); --i)
                    std::memcpy(&file[at + size_t(i - 1) * 4], &kWords[random.below(std::size(kWords))], 4);
                break;
            }
            case 5: {  // bytes of one place at another
                if (file.size() < 16) break;
                const size_t length = size_t(random.below(int64_t(file.size()) / 2)), from = size_t(random.below(int64_t(file.size() - length)));
                file.replace(size_t(random.below(int64_t(file.size()))), length, file.substr(from, length));
                break;
            }
            default: mutate_header(file, random);
        }
    }
    return file;
}

struct Memory {  // a file that never reaches a disk
    int file = memfd_create("fuzz", MFD_CLOEXEC);
    std::string path = "/proc/self/fd/" + std::to_string(file);
    ~Memory() { close(file); }
    void write(const std::string& bytes) {
        CHECK(ftruncate(file, 0) == 0);
        for (size_t done = 0; done < bytes.size();) {
            const ssize_t n = pwrite(file, bytes.data() + done, bytes.size() - done, off_t(done));
            CHECK(n > 0);
            done += size_t(n);
        }
    }
};

void check_refusal(const char* error) {
    CHECK(error[0] != 0);
    for (const char* c = error; *c; ++c) CHECK(uint8_t(*c) >= 32 && *c != 127);
}

// A few tokens with everything that a value of the file goes through: both kinds of activations, every form of the
// cache, and the sampler's sorting.
void use(const pippin_model* model, const pippin_adapter* adapter, const pippin_config& config, const std::vector<std::string>& kernels, Random& random) {
    char error[2000] = "";
    pippin_options options = small_options(kernels[size_t(random.below(int64_t(kernels.size())))].c_str());
    options.exact = int32_t(random.below(2)), options.kv = int32_t(random.below(3));
    pippin_engine* engine = pippin_engine_open(model, nullptr, &options, error, sizeof error);
    if (engine == nullptr) fail("engine: %s", error);
    std::vector<int32_t> prompt;
    for (int i = 0; i < 5; ++i) prompt.push_back(int32_t(random.below(config.vocab_size)));
    pippin_request request = small_request(prompt, 3);
    request.adapter = adapter;
    request.temperature = float(random.below(3)), request.top_k = int32_t(random.below(40));
    request.top_p = random.below(2) ? 0.9f : 1.0f, request.min_p = random.below(2) ? 0.01f : 0.0f;
    request.repetition_penalty = random.below(2) ? 1.3f : 1.0f;
    request.speculate = int32_t(random.below(2));
    if (pippin_submit(engine, &request, error, sizeof error) < 0) fail("submit: %s", error);
    pippin_event events[64];
    while (pippin_pending(engine) > 0) {
        const int64_t n = pippin_step(engine, events, 64, error, sizeof error);
        if (n < 0) fail("step: %s", error);
        for (int64_t i = 0; i < n; ++i) CHECK(events[i].token >= 0 && events[i].token < config.vocab_size);
    }
    pippin_engine_close(engine);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 7) fail("fuzz_loader MODEL CONFIG ADAPTER RANK SEED COUNT");
    const std::string model_file = read_file(argv[1]), adapter_file = read_file(argv[3]);
    pippin_config config = read_config(argv[2]);
    const int32_t rank = std::atoi(argv[4]);
    Random random{uint64_t(std::atoll(argv[5]))};
    const int64_t count = std::atoll(argv[6]);
    std::vector<std::string> kernels(1);
    char names[200], error[2000] = "";
    CHECK(pippin_kernels(names, sizeof names) == 0);
    for (const char* c = names; *c; ++c) {
        if (*c == ' ')
            kernels.emplace_back();
        else
            kernels.back() += *c;
    }

    Memory memory;
    memory.write(model_file);
    pippin_model* base = pippin_model_open(memory.path.c_str(), &config, error, sizeof error);
    if (base == nullptr) fail("the unchanged model: %s", error);
    CHECK(files.size() == 1);
    Memory second;
    second.write(adapter_file);
    pippin_adapter* plain = pippin_adapter_open(base, second.path.c_str(), rank, 0.5f, error, sizeof error);
    if (plain == nullptr) fail("the unchanged adapter: %s", error);
    use(base, plain, config, kernels, random);
    pippin_adapter_close(plain);

    int64_t opened = 0, refused = 0;
    Memory third;
    for (int64_t i = 0; i < count; ++i) {
        error[0] = 0;
        if (i % 4 == 3) {
            third.write(mutated(adapter_file, random));
            pippin_adapter* adapter = pippin_adapter_open(base, third.path.c_str(), rank, 0.5f, error, sizeof error);
            if (adapter == nullptr) {
                check_refusal(error), ++refused;
                continue;
            }
            use(base, adapter, config, kernels, random), ++opened;
            pippin_adapter_close(adapter);
        } else {
            third.write(mutated(model_file, random));
            config.resident = int32_t(random.below(2));
            pippin_model* model = pippin_model_open(third.path.c_str(), &config, error, sizeof error);
            if (model == nullptr) {
                check_refusal(error), ++refused;
                continue;
            }
            use(model, nullptr, config, kernels, random), ++opened;
            pippin_model_close(model);
        }
    }
    pippin_model_close(base);
    std::printf("opened %lld refused %lld\n", (long long)opened, (long long)refused);
}
