// What one set of kernels computes of a model and an adapter, as numbers on the standard output: for exact and fast,
// each form of the cache, with and without the adapter: the logits of a prompt (as one chunk and as many), the log
// probabilities of it, one projection of every kind, and greedy tokens.
//
//   dump_logits MODEL CONFIG ADAPTER RANK KERNELS
#include "common.h"

int main(int argc, char** argv) {
    if (argc != 6) fail("dump_logits MODEL CONFIG ADAPTER RANK KERNELS");
    char error[2000];
    const pippin_config config = read_config(argv[2]);
    pippin_model* model = pippin_model_open(argv[1], &config, error, sizeof error);
    if (model == nullptr) fail("%s", error);
    pippin_adapter* adapter = pippin_adapter_open(model, argv[3], std::atoi(argv[4]), 0.5f, error, sizeof error);
    if (adapter == nullptr) fail("%s", error);
    Random random{7};
    std::vector<int32_t> prompt;
    for (int i = 0; i < 37; ++i) prompt.push_back(int32_t(random.below(config.vocab_size)));
    const int64_t n = int64_t(prompt.size());
    const int64_t q = int64_t(config.n_heads) * config.d_head, kv = int64_t(config.n_kv_heads) * config.d_head;
    const int64_t rows[7] = {q, kv, kv, config.d_model, config.d_ff, config.d_ff, config.d_model};
    const int64_t cols[7] = {config.d_model, config.d_model, config.d_model, q, config.d_model, config.d_model, config.d_ff};
    for (int32_t exact : {1, 0})
        for (int32_t cache : {0, 1, 2})
            for (int64_t chunk : {64, 3}) {
                pippin_options options = small_options(argv[5]);
                options.exact = exact, options.kv = cache, options.prefill_chunk = int32_t(chunk), options.threads = 2;
                pippin_engine* engine = pippin_engine_open(model, nullptr, &options, error, sizeof error);
                if (engine == nullptr) fail("%s", error);
                for (const pippin_adapter* used : {static_cast<const pippin_adapter*>(nullptr), static_cast<const pippin_adapter*>(adapter)}) {
                    std::vector<float> logits(size_t(config.vocab_size) * 2);
                    if (pippin_logits(engine, prompt.data(), n, used, 2, logits.data(), error, sizeof error)) fail("%s", error);
                    std::printf("logits %d %d %d %d", exact, cache, int(chunk), used != nullptr);
                    for (float each : logits) std::printf(" %.9g", double(each));
                    std::vector<double> scores(size_t(n - 1));
                    if (pippin_score(engine, prompt.data(), n, used, scores.data(), error, sizeof error)) fail("%s", error);
                    std::printf("\nscores %d %d %d %d", exact, cache, int(chunk), used != nullptr);
                    for (double each : scores) std::printf(" %.9g", each);
                    pippin_request request = small_request(prompt, 40);
                    request.adapter = used, request.speculate = cache == 1;
                    if (pippin_submit(engine, &request, error, sizeof error) < 0) fail("%s", error);
                    std::printf("\ngreedy %d %d %d %d", exact, cache, int(chunk), used != nullptr);
                    pippin_event events[64];
                    while (pippin_pending(engine) > 0) {
                        const int64_t count = pippin_step(engine, events, 64, error, sizeof error);
                        if (count < 0) fail("%s", error);
                        for (int64_t i = 0; i < count; ++i) std::printf(" %d", events[i].token);
                    }
                    std::printf("\n");
                }
                for (int which = 0; which < 7 && cache == 0; ++which) {
                    std::vector<float> x(size_t(chunk * cols[which])), y(size_t(chunk * rows[which]));
                    for (float& each : x) each = float(random.below(2001) - 1000) / 250;
                    if (pippin_project(engine, config.n_layers - 1, which, x.data(), chunk, y.data(), error, sizeof error)) fail("%s", error);
                    std::printf("project %d %d %d %d", exact, which, int(chunk), 0);
                    for (float each : y) std::printf(" %.9g", double(each));
                    std::printf("\n");
                }
                pippin_engine_close(engine);
            }
    pippin_adapter_close(adapter);
    pippin_model_close(model);
}
