"""Runs inside the peer's environment (see `llama_peer`): what llama.cpp makes of GGUF files. No Pippin here.

Reads a JSON request from the file named first and writes the answer to the second: the ids of texts, the bytes of ids,
and for every file and prompt the greedy continuation with the logits at each of its steps.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np


def opened(path, **settings):
    return llama_cpp.Llama(str(path), n_threads=1, n_threads_batch=1, verbose=False, **settings)


def greedy(model, prompt, new_tokens):
    """The continuation of `prompt` and the logits that it was chosen from, [new_tokens, vocabulary]."""
    model.reset()
    model.eval(prompt)
    ids, logits = [], []
    for _ in range(new_tokens):
        logits.append(np.array(model.scores[model.n_tokens - 1], np.float32))
        ids.append(int(logits[-1].argmax()))
        model.eval(ids[-1:])
    return ids, np.stack(logits)


def main(request_path, answer_path):
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    answer = {"ids": [], "text": [], "runs": []}
    if request["texts"]:
        vocabulary = opened(request["files"][0], vocab_only=True)
        for text in request["texts"]:
            ids = vocabulary.tokenize(text.encode(), add_bos=True, special=False)
            answer["ids"].append(ids)
            answer["text"].append(vocabulary.detokenize(ids).decode("utf-8", errors="replace"))
    for number, file in enumerate(request["files"]):
        model = opened(file, n_ctx=request["context"], logits_all=True)
        for which, prompt in enumerate(request["prompts"]):
            ids, logits = greedy(model, prompt, request["new_tokens"])
            name = f"{answer_path}.{number}.{which}.npy"
            np.save(name, logits)
            answer["runs"].append({"file": file, "prompt": which, "ids": ids, "logits": name})
    Path(answer_path).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
