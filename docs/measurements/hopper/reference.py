"""A decoder's layers, loss and optimizer as programs of mixed precision run them on one device:
library products that add weight gradients up in fp32, fused attention, one kernel for each norm,
rotation and activation, and nothing kept for the backward that it can do without."""

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
import triton
import triton.language as tl
from torch.nn.attention import SDPBackend, sdpa_kernel

ON_DEVICE = torch.cuda.is_available()
DEVICE = "cuda" if ON_DEVICE else "cpu"
BF16 = torch.bfloat16


def random(*shape, dtype=BF16):
    return torch.randn(*shape, device=DEVICE, dtype=dtype)


def accumulate(main, dy, x):
    """main += dy^T x in fp32, in the product itself where the library can."""
    if not ON_DEVICE:
        main += (dy.t() @ x).float()
        return
    torch.ops.aten.addmm.dtype_out(main, dy.t(), x, torch.float32, out=main)


BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def attend(q, k, v, backend):
    if not ON_DEVICE:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    with sdpa_kernel(BACKENDS[backend]):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True,
                                              enable_gqa=q.shape[1] != k.shape[1])


@triton.jit
def gate_kernel(x, y, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(x + row * 2 * n + at, at < n).to(tl.float32)
    b = tl.load(x + row * 2 * n + n + at, at < n).to(tl.float32)
    tl.store(y + row * n + at, (a * tl.sigmoid(a) * b).to(y.dtype.element_ty), at < n)


@triton.jit
def gate_back_kernel(dy, x, dx, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(x + row * 2 * n + at, at < n).to(tl.float32)
    b = tl.load(x + row * 2 * n + n + at, at < n).to(tl.float32)
    g = tl.load(dy + row * n + at, at < n).to(tl.float32)
    s = tl.sigmoid(a)
    tl.store(dx + row * 2 * n + at, (g * b * s * (1 + a * (1 - s))).to(dx.dtype.element_ty), at < n)
    tl.store(dx + row * 2 * n + n + at, (g * a * s).to(dx.dtype.element_ty), at < n)


def gated(x):
    n = x.shape[-1] // 2
    y = torch.empty(*x.shape[:-1], n, device=x.device, dtype=x.dtype)
    gate_kernel[(x.numel() // (2 * n), triton.cdiv(n, 1024))](x, y, n, BLOCK=1024)
    return y


def gated_back(dy, x):
    n = x.shape[-1] // 2
    dx = torch.empty_like(x)
    gate_back_kernel[(x.numel() // (2 * n), triton.cdiv(n, 1024))](dy, x, dx, n, BLOCK=1024)
    return dx


def smooth(x):
    return F.gelu(x, approximate="tanh")


def smooth_back(dy, x):
    return torch.ops.aten.gelu_backward(dy, x, approximate="tanh")


@triton.jit
def rotate_kernel(x, cos, sin, y, stride, length, sign, HEADS: tl.constexpr, PADDED: tl.constexpr,
                  HALF: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    head, at = tl.arange(0, PADDED)[:, None], tl.arange(0, HALF)[None]
    c = tl.load(cos + (row % length) * HALF + at)
    s = tl.load(sin + (row % length) * HALF + at) * sign
    from_ = x + row * stride + head * 2 * HALF + at
    a = tl.load(from_, head < HEADS).to(tl.float32)
    b = tl.load(from_ + HALF, head < HEADS).to(tl.float32)
    to = y + (row * HEADS + head) * 2 * HALF + at
    tl.store(to, (a * c - b * s).to(y.dtype.element_ty), head < HEADS)
    tl.store(to + HALF, (b * c + a * s).to(y.dtype.element_ty), head < HEADS)


def rotate(x, cos, sin, sign=1.0):
    """x: [batch, sequence, heads, size], heads of a token side by side."""
    b, s, heads, d = x.shape
    if x.stride(3) != 1 or x.stride(2) != d or x.stride(0) != s * x.stride(1):
        x = x.contiguous()
    y = torch.empty(b, s, heads, d, device=x.device, dtype=x.dtype)
    rotate_kernel[(b * s,)](x, cos, sin, y, x.stride(1), s, sign, HEADS=heads,
                            PADDED=triton.next_power_of_2(heads), HALF=d // 2)
    return y


def log_softmax(logits, targets):
    x = logits.float()
    top = x.max(-1, keepdim=True).values
    e = torch.exp(x - top)
    total = e.sum(-1, keepdim=True)
    at = torch.gather(x, 1, targets[:, None])
    return (torch.log(total) + top - at).mean(), e / total


def log_softmax_back(share, targets, scale):
    columns = torch.arange(share.shape[1], device=share.device)
    return ((share - (columns[None] == targets[:, None]).float()) * scale).to(BF16)


if ON_DEVICE:
    torch._dynamo.config.recompile_limit = 64
    log_softmax = torch.compile(log_softmax, dynamic=False)
    log_softmax_back = torch.compile(log_softmax_back, dynamic=False)


class Adam:
    """Weights, gradients and moments of mixed precision in flat fp32 buffers, clipped, as
    Megatron-LM keeps them: 18 bytes a parameter with the bf16 weights and fp32 gradients."""

    def __init__(self, n):
        self.weights = torch.zeros(n, device=DEVICE, dtype=BF16)
        self.master = torch.nn.Parameter(torch.zeros(n, device=DEVICE))
        self.gradient = torch.zeros(n, device=DEVICE)
        self.master.grad = self.gradient
        self.optimizer = torch.optim.AdamW([self.master], lr=1e-4, fused=ON_DEVICE)

    def step(self):
        norm = torch.linalg.vector_norm(self.gradient)
        self.gradient.mul_(torch.clamp(1.0 / (norm + 1e-6), max=1.0))
        self.optimizer.step()
        with torch.no_grad():
            self.weights.copy_(self.master)
        self.gradient.zero_()


class Linear(torch.autograd.Function):
    @staticmethod
    def forward(context, x, weight, main):
        context.save_for_backward(x, weight)
        context.main = main
        return x @ weight.t()

    @staticmethod
    def backward(context, dy):
        x, weight = context.saved_tensors
        dx = dy @ weight
        accumulate(context.main, dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1]))
        return dx, None, None


class Activation(torch.autograd.Function):
    @staticmethod
    def forward(context, x, gate):
        context.save_for_backward(x)
        context.gate = gate
        return gated(x) if gate else smooth(x)

    @staticmethod
    def backward(context, dy):
        (x,) = context.saved_tensors
        return (gated_back if context.gate else smooth_back)(dy, x), None


class Rotary(torch.autograd.Function):
    @staticmethod
    def forward(context, x, cos, sin):
        context.save_for_backward(cos, sin)
        return rotate(x, cos, sin)

    @staticmethod
    def backward(context, dy):
        cos, sin = context.saved_tensors
        return rotate(dy, cos, sin, -1.0), None, None


class Loss(torch.autograd.Function):
    @staticmethod
    def forward(context, logits, targets):
        loss, share = log_softmax(logits, targets)
        context.save_for_backward(share, targets)
        return loss

    @staticmethod
    def backward(context, scale):
        share, targets = context.saved_tensors
        return log_softmax_back(share, targets, float(1.0 / share.shape[0])), None


class Weights:
    """Matrices and norms as views of one flat buffer, so that one optimizer step does all."""

    def __init__(self, shapes):
        sizes = [torch.Size(s).numel() for s in shapes]
        self.state = Adam(sum(sizes))
        self.values, self.mains = [], []
        at = 0
        for shape, size in zip(shapes, sizes):
            view = self.state.weights[at:at + size].view(shape)
            torch.nn.init.normal_(view, std=0.02) if len(shape) > 1 else view.fill_(1)
            self.values.append(view)
            self.mains.append(self.state.gradient[at:at + size].view(shape))
            at += size
        self.state.master.data.copy_(self.state.weights)


class Block:
    """A layer's share of one tensor rank, without its collectives. GPT layers have no biases here."""

    def __init__(self, model, tensor, library):
        h, heads, kv, d, ffn, _, self.gate = model
        self.heads, self.kv, self.d = heads // tensor, kv // tensor, d
        self.library = library
        q = self.heads * d
        self.shapes = [(h,), (q + 2 * self.kv * d, h), (h, q), (h,),
                       ((2 if self.gate else 1) * ffn // tensor, h), (h, ffn // tensor)]

    def norm(self, x, weight):
        if self.gate:
            return F.rms_norm(x, x.shape[-1:], weight)
        return F.layer_norm(x, x.shape[-1:], weight)

    def run(self, x, w, g, cos, sin):
        b, s, _ = x.shape
        y = Linear.apply(self.norm(x, w[0]), w[1], g[1])
        q, k, v = y.split([self.heads * self.d, self.kv * self.d, self.kv * self.d], -1)
        q = q.view(b, s, self.heads, self.d)
        k = k.view(b, s, self.kv, self.d)
        v = v.view(b, s, self.kv, self.d)
        if self.gate:
            q, k = Rotary.apply(q, cos, sin), Rotary.apply(k, cos, sin)
        a = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), self.library)
        x = x + Linear.apply(a.transpose(1, 2).reshape(b, s, -1), w[2], g[2])
        y = Activation.apply(Linear.apply(self.norm(x, w[3]), w[4], g[4]), self.gate)
        return x + Linear.apply(y, w[5], g[5])


def angles(s, d):
    t = torch.outer(torch.arange(s, device=DEVICE).float(),
                    1e4 ** (-torch.arange(0, d, 2, device=DEVICE).float() / d))
    return t.cos(), t.sin()


class Trainer:
    def __init__(self, depth, model, sequence, batch, recompute):
        h, _, _, d, _, vocab, gate = model
        self.depth, self.recompute, self.hidden, self.gate = depth, recompute, h, gate
        self.block = Block(model, 1, "cudnn")
        shapes = self.block.shapes * depth + [(h,), (vocab, h), (vocab, h)]
        if not gate:
            shapes.append((sequence, h))
        self.own = Weights(shapes)
        self.parameters = self.own.state.weights.numel()
        self.cos, self.sin = angles(sequence, d)
        self.tokens = torch.randint(0, vocab, (batch, sequence), device=DEVICE)

    def layer(self, x, i):
        own, at = self.own, 6 * i
        return self.block.run(x, own.values[at:at + 6], own.mains[at:at + 6], self.cos, self.sin)

    def micro_batch(self):
        own, end = self.own, 6 * self.depth
        x = F.embedding(self.tokens, own.values[end + 1])
        if not self.gate:
            x = x + own.values[end + 3]
        x.requires_grad_()
        y = x
        for i in range(self.depth):
            if self.recompute:
                y = torch.utils.checkpoint.checkpoint(self.layer, y, i, use_reentrant=False)
            else:
                y = self.layer(y, i)
        y = self.block.norm(y, own.values[end]).reshape(-1, self.hidden)
        logits = Linear.apply(y, own.values[end + 2], own.mains[end + 2])
        loss = Loss.apply(logits, self.tokens.reshape(-1))
        del logits, y
        (dx,) = torch.autograd.grad(loss, x)
        own.mains[end + 1].index_add_(0, self.tokens.reshape(-1), dx.reshape(-1, self.hidden).float())
        return loss
