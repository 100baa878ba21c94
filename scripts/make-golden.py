#!/usr/bin/env python3
"""Writes the reference that the runtime's tests are held to: what PyTorch computes for two tiny models.

    python3 scripts/make-golden.py [--out tests/data]        (needs torch, transformers, safetensors, numpy)

tests/data then holds
    tokens.u16                    flat little-endian uint16 tokens
    {gpt2,llama}-tiny/            a random checkpoint as transformers writes it: config.json, model.safetensors
    {gpt2,llama}-tiny.json        20 training steps from that checkpoint, and logits of one prompt before and after
    {gpt2,llama}-tiny-gradients.safetensors
                                  the gradient of step 0, before clipping, of every tensor (computed in float64)

The training, exactly:
    data      sample i of step s is the window of S+1 tokens that starts at ((s*B + i) * S) mod (N - S), where B is the
              global batch, S the sequence length and N the number of tokens. The largest start is N-S-1, so a window
              always fits. N is small enough that the last steps wrap.
    loss      mean cross-entropy over the B*S predicted tokens of the step
    clipping  gradients are scaled by min(1, clip / (norm + 1e-6)); the norm on record is the one before clipping
    rate      step s, counted from 0, uses peak * (s+1) / steps: a linear warm-up that reaches its peak at the last step
    AdamW     decoupled weight decay on tensors of two or more dimensions (embeddings included), none on biases and
              norms; epsilon is added to the root of the bias-corrected second moment

Each run is made twice. float32 is transformers as it is. float64 is the one to compare with: the same model in double
precision, with those parts replaced that transformers computes in float32 whatever the model's type.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

SEED = 20240607
VOCAB = 257  # odd, so that no split of the vocabulary is even
TOKENS = 6000
TRAINING = {
    "global_batch": 12, "sequence": 32, "steps": 20, "learning_rate": 3e-4, "warmup_steps": 20,
    "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1, "clip_grad": 1.0,
}
PROMPT_LENGTH = 8


def make_tokens():
    """A chain in which each token has four successors, the first the likeliest: enough structure to learn from."""
    source = random.Random(SEED)
    likely = [int(VOCAB * source.random() ** 2) for _ in range(VOCAB)]
    successors = [[likely[source.randrange(VOCAB)] for _ in range(4)] for _ in range(VOCAB)]
    tokens, token = [], 0
    for _ in range(TOKENS):
        tokens.append(token)
        if source.random() < 0.1:
            token = source.randrange(VOCAB)
        else:
            token = source.choices(successors[token], weights=(8, 4, 2, 1))[0]
    return np.array(tokens, dtype="<u2")


def gpt2_config():
    return transformers.GPT2Config(
        n_layer=4, n_embd=48, n_head=6, n_positions=64, vocab_size=VOCAB, layer_norm_epsilon=1e-5,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, use_cache=False)


def llama_config():
    return transformers.LlamaConfig(
        num_hidden_layers=4, hidden_size=48, num_attention_heads=6, num_key_value_heads=2, intermediate_size=112,
        max_position_embeddings=64, vocab_size=VOCAB, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, attention_dropout=0.0,
        bos_token_id=0, eos_token_id=0, pad_token_id=None, use_cache=False)


def randomize(model):
    """Every tensor random and none trivial: biases away from 0, norm weights away from 1."""
    source = np.random.RandomState(SEED)  # its streams are frozen by NumPy's policy
    for name, tensor in model.named_parameters():
        noise = torch.from_numpy(source.standard_normal(tuple(tensor.shape)).astype(np.float32))
        norm_weight = name.endswith("weight") and tensor.dim() == 1
        with torch.no_grad():
            tensor.copy_(1 + 0.2 * noise if norm_weight else 0.1 * noise)


class Rotary64(torch.nn.Module):
    """The angles position * theta^(-2i/d) in float64, twice side by side as Llama's rotate_half wants them."""

    def __init__(self, config):
        super().__init__()
        dim = config.hidden_size // config.num_attention_heads
        theta = config.rope_parameters["rope_theta"]
        self.frequencies = theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)

    def forward(self, x, position_ids):
        angles = position_ids[:, :, None].double() * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


def load(checkpoint, dtype):
    # In double precision "sdpa" keeps the softmax of Llama in double too; "eager" would take it in float32.
    attention = "sdpa" if dtype == torch.float64 else "eager"
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation=attention)
    model.to(dtype).train()
    if dtype == torch.float64 and model.config.model_type == "llama":
        model.model.rotary_emb = Rotary64(model.config)
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, transformers.models.llama.modeling_llama.LlamaRMSNorm):
                    norm = torch.nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon)
                    norm.weight = child.weight
                    setattr(module, name, norm)
    return model


def logits_of(model, prompt):
    with torch.no_grad():
        return model(torch.tensor([prompt])).logits[0].tolist()


def batch_of(tokens, step):
    batch, sequence = TRAINING["global_batch"], TRAINING["sequence"]
    starts = [((step * batch + i) * sequence) % (len(tokens) - sequence) for i in range(batch)]
    return torch.tensor(np.stack([tokens[a : a + sequence + 1] for a in starts]).astype(np.int64))


def optimizer_for(model):
    parameters = list(model.parameters())
    return torch.optim.AdamW(
        [{"params": [p for p in parameters if p.dim() >= 2], "weight_decay": TRAINING["weight_decay"]},
         {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}],
        betas=(TRAINING["beta1"], TRAINING["beta2"]), eps=TRAINING["epsilon"])


def train(checkpoint, tokens, dtype):
    """The run's record for the JSON file, and the gradients of its first step."""
    model = load(checkpoint, dtype)
    prompt = tokens[:PROMPT_LENGTH].tolist()
    record = {"initial_logits": logits_of(model, prompt), "steps": []}
    optimizer = optimizer_for(model)
    gradients = None
    for step in range(TRAINING["steps"]):
        windows = batch_of(tokens, step)
        rate = TRAINING["learning_rate"] * (step + 1) / TRAINING["warmup_steps"]
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        logits = model(windows[:, :-1]).logits
        assert logits.dtype == dtype
        loss = cross_entropy(logits.reshape(-1, VOCAB), windows[:, 1:].reshape(-1))
        loss.backward()
        if gradients is None:
            gradients = {name: p.grad.float().clone() for name, p in model.named_parameters()}
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), TRAINING["clip_grad"])
        optimizer.step()
        record["steps"].append(
            {"step": step, "loss": loss.item(), "grad_norm": norm.item(), "learning_rate": rate})
    record["final_logits"] = logits_of(model, prompt)
    return record, gradients


def round_floats(value, digits):
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, list):
        return [round_floats(item, digits) for item in value]
    if isinstance(value, dict):
        return {key: round_floats(item, digits) for key, item in value.items()}
    return value


def as_text(record):
    """JSON with one step or one row of logits a line."""
    def lines(key, items):
        return f'    "{key}": [\n' + ",\n".join(f"      {json.dumps(item)}" for item in items) + "\n    ]"

    parts = [f'  "{key}": {json.dumps(record[key])}' for key in ("training", "tokens", "prompt")]
    for run in ("float64", "float32"):
        body = ",\n".join(lines(key, items) for key, items in record[run].items())
        parts.append(f'  "{run}": {{\n{body}\n  }}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def write_family(out, name, model_class, config, tokens):
    checkpoint = out / name
    model = model_class(config)
    randomize(model)
    model.save_pretrained(checkpoint)
    (checkpoint / "generation_config.json").unlink(missing_ok=True)

    exact, gradients = train(checkpoint, tokens, torch.float64)
    single, _ = train(checkpoint, tokens, torch.float32)
    for a, b in zip(exact["steps"], single["steps"]):
        for key in ("loss", "grad_norm"):
            assert abs(a[key] - b[key]) < 2e-5 * a[key], (name, a, b)
    record = {
        "training": TRAINING, "tokens": {"file": "tokens.u16", "count": len(tokens)},
        "prompt": tokens[:PROMPT_LENGTH].tolist(),
        "float64": round_floats(exact, 12), "float32": round_floats(single, 9),
    }
    (out / f"{name}.json").write_text(as_text(record))
    save_file(gradients, out / f"{name}-gradients.safetensors", metadata={"format": "pt"})

    first, last = exact["steps"][0], exact["steps"][-1]
    print(f"{checkpoint}: {sum(p.numel() for p in model.parameters())} parameters")
    print(f"  loss {first['loss']:.6f} -> {last['loss']:.6f}, "
          f"gradient norm {first['grad_norm']:.4f} -> {last['grad_norm']:.4f}")
    widest = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(exact["steps"], single["steps"]))
    print(f"  float32 stays within {widest:.1e} of float64's losses")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "tests/data")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # one order of summation
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.disable_progress_bar()

    tokens = make_tokens()
    tokens.tofile(out / "tokens.u16")
    print(f"{out / 'tokens.u16'}: {len(tokens)} tokens, {len(set(tokens.tolist()))} different")
    write_family(out, "gpt2-tiny", transformers.GPT2LMHeadModel, gpt2_config(), tokens)
    write_family(out, "llama-tiny", transformers.LlamaForCausalLM, llama_config(), tokens)
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        print(f"  {path.stat().st_size:8d} bytes  {path.relative_to(out)}")


if __name__ == "__main__":
    main()
