"""What one accelerator takes for the parts of a training step, as PyTorch runs them.

    python3 measure.py FOLDER [products attention streams launches layers steps]
    python3 measure.py FOLDER drawn

Writes one CSV a section into FOLDER. Each time is the median of several runs between device events,
after a warm-up, over fresh random data that no cache holds. The reference that the planner's
figures of a device are compared with (build/release/device-figures); nothing of trireme uses it.
`drawn` measures whole steps of models that a seed chose and nobody looked at before.
"""

import csv
import os
import random as chance
import statistics
import sys
import time
import traceback

import torch
import torch.nn.functional as F

from reference import (DEVICE, ON_DEVICE, Adam, BACKENDS, Block, Trainer, Weights, accumulate,
                       angles, attend, gated, gated_back, log_softmax, log_softmax_back, random,
                       rotate, smooth, smooth_back)

DIMENSIONS = ["hidden", "heads", "kv_heads", "head_dim", "ffn_hidden", "vocab", "gated"]
MODELS = {
    "gpt-1.3b": (2048, 16, 16, 128, 8192, 51200, False),
    "llama-8b": (4096, 32, 8, 128, 14336, 128256, True),
    "llama-70b": (8192, 64, 8, 128, 28672, 128256, True),
    "gpt-175b": (12288, 96, 96, 128, 49152, 51200, False),
    "llama-405b": (16384, 128, 8, 128, 53248, 128256, True),
}


def synchronize():
    if ON_DEVICE:
        torch.cuda.synchronize()


def seconds(run, budget=0.03, samples=5, warm=3):
    """Median time of one call of run(i), which is told how often it was called."""
    calls = 0
    for _ in range(warm):
        run(calls)
        calls += 1
    synchronize()
    if not ON_DEVICE:
        start = time.perf_counter()
        run(calls)
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run(calls)
    end.record()
    synchronize()
    once = max(begin.elapsed_time(end) / 1e3, 2e-6)
    repeats = max(1, int(budget / samples / once))
    times = []
    for _ in range(samples):
        begin.record()
        for _ in range(repeats):
            calls += 1
            run(calls)
        end.record()
        synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / repeats)
    return statistics.median(times)


class Table:
    def __init__(self, folder, name, columns):
        self.file = open(os.path.join(folder, name + ".csv"), "w", newline="")
        self.writer = csv.writer(self.file, lineterminator="\n")
        self.writer.writerow(columns)

    def add(self, *row):
        self.writer.writerow([f"{x:.4g}" if isinstance(x, float) else x for x in row])
        self.file.flush()


def products(folder, small):
    """Every matrix product of a layer and head: forward, input and weight gradient."""
    table = Table(folder, "products", ["model", "tensor", "product", "pass", "m", "k", "n", "seconds"])
    for name, (h, heads, kv, d, ffn, vocab, gate) in MODELS.items():
        for tensor in (1, 2, 4, 8):
            if kv % tensor:
                continue
            q = heads * d // tensor
            linears = {
                "qkv": (h, q + 2 * kv * d // tensor),
                "out": (q, h),
                "up": (h, (2 if gate else 1) * ffn // tensor),
                "down": (ffn // tensor, h),
                "head": (h, vocab // tensor),
            }
            for tokens in (2048, 4096, 8192):
                for product, (k, n) in linears.items():
                    if small and (tensor != 8 or tokens != 2048 or h > 2048):
                        continue
                    copies = max(1, min(4, int(2e8 / (2 * (tokens * k + k * n + tokens * n)))))
                    x = [random(tokens, k) for _ in range(copies)]
                    w = [random(n, k) for _ in range(copies)]
                    dy = [random(tokens, n) for _ in range(copies)]
                    main = torch.zeros(n, k, device=DEVICE)
                    runs = {
                        "forward": (tokens, k, n, lambda i: x[i % copies] @ w[i % copies].t()),
                        "input": (tokens, n, k, lambda i: dy[i % copies] @ w[i % copies]),
                        "weight": (k, tokens, n,
                                   lambda i: accumulate(main, dy[i % copies], x[i % copies])),
                    }
                    for which, (m, kk, nn, run) in runs.items():
                        table.add(name, tensor, product, which, m, kk, nn, seconds(run))
                    del x, w, dy, main


def attention(folder, small):
    """Causal attention by two libraries; [batch, sequence, heads, size] as a projection leaves it."""
    table = Table(folder, "attention", ["library", "batch", "sequence", "heads", "kv_heads", "size",
                                        "forward", "backward"])
    shapes = [(b, s, heads, kv, d)
              for d in (64, 128)
              for heads, kv in ((4, 4), (8, 1), (16, 16), (32, 8))
              for b, s in ((4, 2048), (2, 4096), (1, 8192), (1, 32768))]
    for b, s, heads, kv, d in shapes[:1] if small else shapes:
        if s > 8192 and heads > 16:
            continue
        for library in BACKENDS:
            try:
                q = random(b, s, heads, d).transpose(1, 2).requires_grad_()
                k = random(b, s, kv, d).transpose(1, 2).requires_grad_()
                v = random(b, s, kv, d).transpose(1, 2).requires_grad_()
                out = attend(q, k, v, library)
                dy = torch.randn_like(out)
                forward = seconds(lambda i: attend(q, k, v, library))
                backward = seconds(
                    lambda i: torch.autograd.grad(out, (q, k, v), dy, retain_graph=True))
                table.add(library, b, s, heads, kv, d, forward, backward)
            except RuntimeError as error:
                table.add(library, b, s, heads, kv, d, str(error).split("\n")[0][:60], "")


def streams(folder, small):
    """Kernels bound by memory: bytes as the planner counts them, and what they took."""
    table = Table(folder, "streams", ["kernel", "bytes", "seconds"])
    for power in (22,) if small else (20, 22, 24, 26, 28, 30):
        n = 1 << power
        copies = max(1, min(8, (1 << 28) // n))
        x = [random(n // 2) for _ in range(copies)]
        y = [torch.empty_like(a) for a in x]
        table.add("copy", 2 * n, seconds(lambda i: y[i % copies].copy_(x[i % copies])))
        table.add("add", 3 * n, seconds(lambda i: torch.add(x[i % copies], y[i % copies],
                                                            out=y[i % copies])))
        del x, y
    for tokens, h in ((2048, 2048),) if small else ((2048, 2048), (8192, 2048), (4096, 4096),
                                                    (8192, 4096), (4096, 8192), (8192, 16384)):
        n = tokens * h * 2
        copies = max(1, min(4, (1 << 28) // n))
        x = [random(tokens, h).requires_grad_() for _ in range(copies)]
        dy = [random(tokens, h) for _ in range(copies)]
        g = random(h).requires_grad_()
        zero = random(h).requires_grad_()
        for name, call in (("rms_norm", lambda a: F.rms_norm(a, (h,), g)),
                           ("layer_norm", lambda a: F.layer_norm(a, (h,), g, zero))):
            out = [call(a) for a in x]
            table.add(name, 2 * n, seconds(lambda i: call(x[i % copies])))
            table.add(name + "_back", 4 * n, seconds(lambda i: torch.autograd.grad(
                out[i % copies], (x[i % copies], g), dy[i % copies], retain_graph=True)))
            del out
        wide = [random(tokens, 2 * h) for _ in range(copies)]
        table.add("gated", 3 * n, seconds(lambda i: gated(wide[i % copies])))
        table.add("gated_back", 6 * n, seconds(lambda i: gated_back(dy[i % copies], wide[i % copies])))
        with torch.no_grad():
            table.add("gelu", 2 * n, seconds(lambda i: smooth(x[i % copies])))
            table.add("gelu_back", 4 * n, seconds(lambda i: smooth_back(dy[i % copies], x[i % copies])))
        cos = random(tokens, 64, dtype=torch.float32)
        heads = [a.detach().view(1, tokens, h // 128, 128) for a in x]
        table.add("rotate", 2 * n, seconds(lambda i: rotate(heads[i % copies], cos, cos)))
        del x, dy, wide, heads
    for tokens, vocab in ((512, 8192),) if small else ((4096, 50304), (4096, 16032), (8192, 128256)):
        logits = random(tokens, vocab)
        targets = torch.randint(0, vocab, (tokens,), device=DEVICE)
        _, share = log_softmax(logits, targets)
        table.add("loss", 5 * 4 * tokens * vocab, seconds(lambda i: log_softmax(logits, targets)))
        table.add("loss_back", 3 * 4 * tokens * vocab,
                  seconds(lambda i: log_softmax_back(share, targets, 1e-3)))
        del logits, share
    for n in (1 << 20,) if small else (1 << 24, 1 << 28, 1 << 30):
        state = Adam(n)
        table.add("adam", 42 * n, seconds(lambda i: state.step(), budget=0.1))
        del state


def launches(folder, small):
    """From one kernel to the next: as the host issues them, and replayed from a graph."""
    table = Table(folder, "launches", ["how", "seconds"])
    x = random(1024)
    table.add("eager", seconds(lambda i: x.add_(1), budget=0.2))
    a, b = random(64, 64), random(64, 64)
    table.add("eager product", seconds(lambda i: a @ b, budget=0.2))
    if not ON_DEVICE:
        return
    for name, run in (("graph", lambda: x.add_(1)),):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(1000):
                run()
        table.add(name, seconds(lambda i: graph.replay(), budget=0.2) / 1000)


def layers(folder, small):
    """A layer's forward and whole backward, without collectives, in a chain of four."""
    table = Table(folder, "layers", ["model", *DIMENSIONS, "tensor", "batch", "sequence", "library",
                                     "forward", "backward", "activations"])
    for name, model in MODELS.items():
        for tensor in (1, 2, 4, 8):
            if model[2] % tensor or model[0] // tensor > 4096:
                continue
            for b, s in ((1, 2048), (1, 4096), (4, 2048), (1, 8192)):
                if small and (tensor != 8 or s * b != 2048 or model[0] > 2048):
                    continue
                for library in ("flash", "cudnn") if s == 8192 else ("cudnn",):
                    block = Block(model, tensor, library)
                    own = Weights(block.shapes * 4)
                    # Norms learn as well, but their small gradients are left to autograd.
                    x = random(b, s, model[0]).requires_grad_()
                    cos, sin = angles(s, model[3])

                    def forward():
                        y = x
                        for i in range(4):
                            y = block.run(y, own.values[6 * i:6 * i + 6], own.mains[6 * i:6 * i + 6],
                                          cos, sin)
                        return y

                    dy = random(b, s, model[0])
                    before = torch.cuda.memory_allocated() if ON_DEVICE else 0
                    out = forward()
                    held = torch.cuda.memory_allocated() - before if ON_DEVICE else 0
                    ahead = seconds(lambda i: forward(), budget=0.06)
                    back = seconds(lambda i: torch.autograd.grad(out, x, dy, retain_graph=True),
                                   budget=0.06)
                    table.add(name, *map(int, model), tensor, b, s, library, ahead / 4, back / 4, held // 4)
                    del out, own, x, dy


# layers, width as above, sequence, samples a micro-batch, micro-batches, recompute all
STEPS = {
    "llama-1b": (16, (2048, 32, 8, 64, 8192, 128256, True), 8192, 1, 4, False),
    "llama-1b-2": (16, (2048, 32, 8, 64, 8192, 128256, True), 4096, 2, 4, False),
    "llama-3b": (24, (3072, 24, 8, 128, 8192, 64000, True), 4096, 1, 8, False),
    "gpt-1.3b": (24, (2048, 16, 16, 128, 8192, 51200, False), 2048, 4, 4, False),
    "gpt-1.3b-1": (24, (2048, 16, 16, 128, 8192, 51200, False), 2048, 1, 16, False),
    "gpt-2.7b": (32, (2560, 20, 20, 128, 10240, 51200, False), 2048, 2, 8, False),
    "wide-8b": (8, (4096, 32, 8, 128, 14336, 32000, True), 4096, 2, 8, False),
    "wide-8b-full": (8, (4096, 32, 8, 128, 14336, 32000, True), 4096, 4, 4, True),
    "wide-8b-long": (8, (4096, 32, 8, 128, 14336, 32000, True), 32768, 1, 2, True),
    "wide-70b": (2, (8192, 64, 8, 128, 28672, 32000, True), 4096, 1, 16, False),
    "wide-70b-2": (2, (8192, 64, 8, 128, 28672, 32000, True), 4096, 2, 8, False),
    "gpt-6.7b-wide": (8, (4096, 32, 32, 128, 16384, 51200, False), 2048, 2, 8, False),
}


def draw(seed, count):
    """Models at random of those that one device of 80 GB trains for some seconds."""
    dice = chance.Random(seed)
    chosen = {}
    while len(chosen) < count:
        gate = dice.random() < 0.5
        head = dice.choice((64, 128, 128))
        hidden = 512 * dice.randint(2, 16)
        heads = hidden // head
        shared = dice.choice([g for g in (1, 2, 4, 8) if heads % g == 0]) if gate else 1
        ffn = 256 * round(hidden * dice.choice((8 / 3, 3, 3.5, 4)) / 256) if gate else 4 * hidden
        vocab = dice.choice((32000, 50304, 64000, 100352, 128256))
        sequence = dice.choice((1024, 2048, 4096, 8192, 16384))
        batch = dice.choice((1, 2, 4, 8))
        micro = dice.choice((2, 4, 6, 8, 12, 16))
        depth = dice.randint(2, 32)
        recompute = dice.random() < 0.25
        tokens = sequence * batch
        matrices = hidden * (2 * hidden + 2 * hidden // shared + (3 if gate else 2) * ffn)
        state = 18 * (depth * matrices + 2 * vocab * hidden)
        held = (2 * hidden * depth if recompute else 34 * hidden * depth) * tokens
        work = 6 * tokens * micro * (depth * matrices + vocab * hidden) / 6e14
        if state + held + 8 * tokens * vocab > 66e9 or not 0.1 < work < 3 or tokens > 32768:
            continue
        model = (hidden, heads, heads // shared, head, ffn, vocab, gate)
        chosen[f"drawn-{len(chosen)}"] = (depth, model, sequence, batch, micro, recompute)
    return chosen


def drawn(folder, small):
    steps(folder, small, draw(2026, 3 if small else 30), 4)


def steps(folder, small, models=STEPS, long_enough=7):
    """Whole steps of one device, for seconds on end: time, memory, and the pace it settles to."""
    table = Table(folder, "steps", ["name", "layers", *DIMENSIONS, "sequence", "micro_batch",
                                    "micro_batches", "full_recompute", "parameters", "first",
                                    "seconds", "slowest", "allocated", "reserved", "used"])
    for name, (depth, model, sequence, batch, micro, recompute) in models.items():
        if small:
            depth, sequence, model = 2, 256, (256, 4, 2, 64, 512, 1024, model[-1])
        described = (depth, *map(int, model), sequence, batch, micro, int(recompute))
        try:
            trainer = Trainer(depth, model, sequence, batch, recompute)
            for _ in range(2):
                trainer.micro_batch()
            trainer.own.state.step()
            if ON_DEVICE:
                torch.cuda.reset_peak_memory_stats()
            times, start = [], time.perf_counter()
            while len(times) < 5 or time.perf_counter() - start < (1 if small else long_enough):
                synchronize()
                begin = time.perf_counter()
                for _ in range(micro):
                    loss = trainer.micro_batch()
                trainer.own.state.step()
                synchronize()
                times.append(time.perf_counter() - begin)
            assert torch.isfinite(loss), loss
            memory = (0, 0, 0)
            if ON_DEVICE:
                free, total = torch.cuda.mem_get_info()
                memory = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(),
                          total - free)
            half = times[len(times) // 2:]
            table.add(name, *described, trainer.parameters, times[0], statistics.median(half),
                      max(half), *memory)
        except RuntimeError as error:
            table.add(name, *described, 0, str(error).split("\n")[0][:80], "", "", "", "", "")
        trainer = loss = None
        if ON_DEVICE:
            torch.cuda.empty_cache()


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    sections = (launches, steps, layers, attention, products, streams, drawn)
    small = not ON_DEVICE or "small" in sys.argv
    chosen = [a for a in sys.argv[2:] if a != "small"]
    usual = [section.__name__ for section in sections if section is not drawn]
    torch.manual_seed(1)
    if ON_DEVICE:
        print(torch.cuda.get_device_name(), torch.__version__, torch.version.cuda)
    for section in sections:
        if section.__name__ not in (chosen or usual):
            continue
        start = time.perf_counter()
        try:
            section(folder, small)
        except Exception:
            traceback.print_exc()
        print(f"{section.__name__}: {time.perf_counter() - start:.0f} s", flush=True)


main()
