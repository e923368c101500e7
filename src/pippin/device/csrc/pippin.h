/* The C interface of the engine. See pippin/device/engine.py for its use and docs/device.md for what it does.

   Functions that can fail return NULL or -1 and write one line to `error` (at most `room` bytes with the final zero).
   An engine may be used by several threads; pippin_step, pippin_score and pippin_logits wait for each other.
   Models and adapters may be closed while engines still use them: memory is given back after the last use. An engine
   may be closed only when no other call on it runs; in a child that the process forked every call is refused. After a
   failed pippin_step (memory) its requests go on with the next one. */
#ifndef PIPPIN_H
#define PIPPIN_H
#include <stddef.h>
#include <stdint.h>

#define PIPPIN_ABI 2

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif
#ifdef __cplusplus
extern "C" {
#endif

typedef struct pippin_model pippin_model;
typedef struct pippin_adapter pippin_adapter;
typedef struct pippin_engine pippin_engine;

/* The fields of pippin.model.config.ModelConfig. */
typedef struct {
    int32_t vocab_size, d_model, n_layers, n_heads, n_kv_heads, d_head, d_ff, max_seq_len;
    int32_t rope_before_norm, qk_norm /* 0 none, 1 head, 2 width */, qkv_bias, post_norm, tied, rope_scaled;
    double rope_base, norm_eps;
    double rope_factor, rope_low, rope_high, rope_original; /* if rope_scaled */
    int32_t resident; /* 1: weights are read into huge pages; 0: they stay in the mapped file */
    int32_t unused;
} pippin_config;

typedef struct {
    int32_t threads;       /* 0: one for each core that this process may use */
    int32_t exact;         /* 1: float activations; 0: int8 activations */
    int32_t kv;            /* keys and values: 0 float32, 1 bfloat16, 2 int8 */
    int32_t max_sequences; /* that run at the same time; others wait */
    int32_t prefill_chunk; /* most prompt tokens of one step */
    int32_t reserved;
    int64_t kv_tokens;     /* room for keys and values, in tokens over all sequences */
    const char* kernels;   /* "" for the best of this processor */
} pippin_options;

typedef struct {
    const int32_t* tokens;
    int64_t n_tokens;
    int64_t max_tokens;
    float temperature; /* 0: the most likely token */
    int32_t top_k;     /* 0: all */
    float top_p;       /* 1: all */
    float min_p;       /* 0: all; else at least this share of the largest probability */
    float repetition_penalty; /* 1: none */
    int32_t speculate; /* 0 no, 1 by look-up of n-grams, 2 by the draft model */
    uint64_t seed;
    const int32_t* stop_ids;
    int64_t n_stop_ids;
    const char* const* stop_texts; /* bytes, not ended by zero */
    const int64_t* stop_lengths;
    int64_t n_stop_texts;
    const pippin_adapter* adapter; /* or NULL */
} pippin_request;

enum { PIPPIN_RUNNING = 0, PIPPIN_STOP_ID = 1, PIPPIN_STOP_TEXT = 2, PIPPIN_LENGTH = 3, PIPPIN_CANCELLED = 4 };

typedef struct {
    int64_t request;
    int32_t token;   /* -1 if the request ended without one more token */
    int32_t finish;
    int64_t settled; /* bytes of the text so far that no stop text can take back */
    double logprob;  /* of the token, before temperature, penalty and truncation */
} pippin_event;

typedef struct {
    int64_t pages, pages_used, pages_cached; /* of kv_page_tokens tokens each */
    int64_t kv_page_tokens, kv_page_bytes;
    int64_t prompt_tokens, reused_tokens, new_tokens; /* so far */
    int64_t drafted, accepted, steps, rows;
    int64_t bytes_per_token;
    /* Nanoseconds of the forward passes so far, by what the calling thread did: matrices with
       their adapters; attention with the cache; norms, rotation and packing of inputs; the head. `wait_ns`, part of
       these, is the time that it waited for other threads to end a loop. `sample_ns`: choosing tokens. */
    int64_t matrix_ns, attention_ns, norm_ns, head_ns, wait_ns, sample_ns;
} pippin_stats;

int32_t pippin_abi(void);
/* Names of the kernels that work on this processor, best first, separated by spaces. */
int32_t pippin_kernels(char* names, size_t room);

pippin_model* pippin_model_open(const char* path, const pippin_config* config, char* error, size_t room);
void pippin_model_close(pippin_model* model);
int64_t pippin_model_bytes_per_token(const pippin_model* model);

/* A LoRA in PEFT's layout: scale * B A x. Projections without one are left alone. */
pippin_adapter* pippin_adapter_open(const pippin_model* model, const char* path, int32_t rank, float scale, char* error, size_t room);
void pippin_adapter_close(pippin_adapter* adapter);

pippin_engine* pippin_engine_open(const pippin_model* model, const pippin_model* draft, const pippin_options* options, char* error,
                                  size_t room);
void pippin_engine_close(pippin_engine* engine);
/* The bytes of every token, end to end: token i is bytes [ends[i - 1], ends[i]). Needed for stop texts only. */
int32_t pippin_engine_set_text(pippin_engine* engine, const uint8_t* bytes, const int64_t* ends, int64_t n, char* error, size_t room);

/* The number of the request, counted from 1. */
int64_t pippin_submit(pippin_engine* engine, const pippin_request* request, char* error, size_t room);
int32_t pippin_cancel(pippin_engine* engine, int64_t request);
/* One forward pass over all that runs. The number of events written, 0 if nothing was to do; `room_events` should be
   at least 16 * max_sequences. */
int64_t pippin_step(pippin_engine* engine, pippin_event* events, int64_t room_events, char* error, size_t room);
/* Requests that wait or run. */
int64_t pippin_pending(pippin_engine* engine);
int32_t pippin_get_stats(pippin_engine* engine, pippin_stats* stats);

/* log p(tokens[i] | tokens[:i]) for i = 1 .. n - 1. */
int32_t pippin_score(pippin_engine* engine, const int32_t* tokens, int64_t n, const pippin_adapter* adapter, double* logprobs, char* error,
                     size_t room);
/* Logits after each of the last n_logits tokens, [n_logits, vocab_size]. */
int32_t pippin_logits(pippin_engine* engine, const int32_t* tokens, int64_t n, const pippin_adapter* adapter, int64_t n_logits, float* logits,
                      char* error, size_t room);
/* One projection (layer, 0 to 6 for q k v o gate up down) of n vectors x [n, in] to y [n, out]. */
int32_t pippin_project(pippin_engine* engine, int32_t layer, int32_t which, const float* x, int64_t n, float* y, char* error, size_t room);

/* Bytes a second of a plain read of `bytes` of memory by `threads` threads, the best of `rounds`; -1 without memory. */
double pippin_read_bandwidth(int64_t bytes, int32_t threads, int32_t rounds);

#ifdef __cplusplus
}
#endif
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#endif
