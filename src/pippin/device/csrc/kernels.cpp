#include "kernels.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "error.h"

namespace pippin {

namespace portable { const Kernels& table(); }
#if defined(__x86_64__)
namespace avx2 { const Kernels& table(); }
namespace avx512 { const Kernels& table(); }
#elif defined(__aarch64__)
namespace neon { const Kernels& table(); }
namespace i8mm { const Kernels& table(); }
#endif

namespace {

std::vector<const Kernels*> usable() {
    std::vector<const Kernels*> tables;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni"))
        tables.push_back(&avx512::table());
    // F16C, which older compilers have no name for here, is older than AVX2: no processor has the one without the other.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        tables.push_back(&avx2::table());
#elif defined(__aarch64__)
#if defined(__linux__)
    constexpr unsigned long kDotProduct = 1ul << 20, kMatrixProduct = 1ul << 13;  // HWCAP_ASIMDDP, HWCAP2_I8MM
    const bool dot_product = getauxval(AT_HWCAP) & kDotProduct;
    if (dot_product && getauxval(AT_HWCAP2) & kMatrixProduct) tables.push_back(&i8mm::table());
    if (dot_product) tables.push_back(&neon::table());
#else
#if defined(__APPLE__)
    int has = 0;
    size_t size = sizeof has;
    if (sysctlbyname("hw.optional.arm.FEAT_I8MM", &has, &size, nullptr, 0) == 0 && has) tables.push_back(&i8mm::table());
#endif
    tables.push_back(&neon::table());  // every Apple processor of 64 bits that runs a current system
#endif
#endif
    tables.push_back(&portable::table());
    return tables;
}

}  // namespace

const Kernels& choose_kernels(const std::string& name) {
    std::string names;
    for (const Kernels* table : usable()) {
        if (name.empty() || name == table->name) return *table;
        names += std::string(names.empty() ? "" : ", ") + table->name;
    }
    throw Error("kernels: value '" + name + "': not usable on this processor; choose one of " + names);
}

std::vector<std::string> available_kernels() {
    std::vector<std::string> names;
    for (const Kernels* table : usable()) names.push_back(table->name);
    return names;
}

}  // namespace pippin
