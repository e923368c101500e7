"""Runs inside the peer's environment (see `llama_peer`): llama.cpp's speed, JSON in, JSON out. No Pippin here.

The same tasks as `pippin.bench.device_worker` through llama.cpp's C interface; as in its own bench the tokens are
random and nothing is sampled.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import llama_cpp
import numpy as np

START = 8


class Worker:
    """A model and one context; flash attention is given, never chosen by llama.cpp itself."""

    def __init__(self, request):
        path = request["model"].encode()
        self.model = llama_cpp.llama_model_load_from_file(path, llama_cpp.llama_model_default_params())
        assert self.model, f"{path}: was not loaded"
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = request["context"]
        settings.flash_attn_type = int(request["flash"])
        settings.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        assert self.context, f"{path}: no context"
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.rng = np.random.default_rng(request["seed"])

    def decode(self, threads, tokens):
        self.start(threads)
        self.eval(START)
        self.eval(1)
        start = time.perf_counter()
        for _ in range(tokens):
            self.eval(1)
        return tokens / (time.perf_counter() - start)

    def prefill(self, threads, tokens):
        self.start(threads)
        start = time.perf_counter()
        self.eval(tokens)
        return time.perf_counter() - start

    def start(self, threads):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        llama_cpp.llama_set_n_threads(self.context, threads, threads)

    def eval(self, count):
        """Random tokens in one batch, with the logits of the last."""
        ids = (llama_cpp.llama_token * count)(*self.rng.integers(0, self.vocabulary, count).tolist())
        assert llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(ids, count)) == 0
        llama_cpp.llama_synchronize(self.context)


def peak_memory():
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main():
    request = json.load(sys.stdin)
    worker = Worker(request)
    tasks = {"decode": worker.decode, "prefill": worker.prefill}
    values = [tasks[task.pop("do")](**task) for task in request["tasks"]]
    read = llama_cpp.llama_model_size(worker.model)
    system = llama_cpp.llama_print_system_info().decode()
    print(json.dumps({"values": values, "bytes_per_token": read, "peak": peak_memory(), "system": system}))


if __name__ == "__main__":
    main()
