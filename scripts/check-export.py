#!/usr/bin/env python3
"""Loads an exported model with transformers and, if asked, compares its logits with a reference from make-golden.py.

    python3 scripts/check-export.py runs/quickstart/checkpoints/step-00000200
    python3 scripts/check-export.py DIR --golden tests/data/gpt2-tiny.json --logits final

DIR holds config.json and *.safetensors, with model.safetensors.index.json when there are several. Exits with 0 when
every tensor is there under the name that transformers expects, the logits are finite and they agree; with 1 otherwise.
Needs torch, transformers, numpy.
"""

import argparse
import json
import sys
from pathlib import Path

try:
    import numpy as np
    import torch
    import transformers
except ModuleNotFoundError as missing:
    sys.exit(f"check-export.py: {missing}; it needs torch, transformers and numpy")


def load(directory):
    """The model, and complaints about tensors that are missing, left over or of another shape."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, output_loading_info=True, local_files_only=True)
    complaints = [f"{key}: {sorted(map(str, names))}" for key, names in info.items() if names]
    return model.eval(), complaints


def logits_of(model, prompt):
    with torch.no_grad():
        return model(torch.tensor([prompt])).logits[0].double().numpy()


def compare(logits, golden, tolerance):
    """A complaint when the largest difference exceeds `tolerance` of the largest golden logit."""
    if logits.shape != golden.shape:
        return f"logits are {logits.shape}, the reference has {golden.shape}"
    difference = np.abs(logits - golden).max()
    relative = difference / np.abs(golden).max()
    print(f"largest difference from the reference: {difference:.3e}, relative to its largest logit {relative:.3e}")
    if relative <= tolerance:
        return None
    return f"logits differ by {relative:.3e}, more than {tolerance:.1e}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--golden", type=Path, help="a JSON file of make-golden.py")
    parser.add_argument("--logits", choices=["initial", "final"], default="final",
                        help="compare with those before or after the 20 training steps (default: final)")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    options = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()

    model, complaints = load(options.directory)
    golden = json.loads(options.golden.read_text()) if options.golden else None
    prompt = golden["prompt"] if golden else list(range(min(8, model.config.vocab_size)))
    logits = logits_of(model, prompt)
    print(f"{type(model).__name__}, {sum(p.numel() for p in model.parameters())} parameters, prompt {prompt}")
    print(f"logits {logits.shape}: mean {logits.mean():.6f}, deviation {logits.std():.6f}, "
          f"from {logits.min():.6f} to {logits.max():.6f}")
    print(f"most likely next tokens: {logits.argmax(axis=1).tolist()}")

    if not np.isfinite(logits).all():
        complaints.append("logits are not all finite")
    if golden:
        complaints.append(
            compare(logits, np.array(golden["float64"][f"{options.logits}_logits"]), options.tolerance))
    complaints = [complaint for complaint in complaints if complaint]
    for complaint in complaints:
        print(f"check-export: {complaint}", file=sys.stderr)
    print("agrees" if golden and not complaints else "loads" if not complaints else "FAILED")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
