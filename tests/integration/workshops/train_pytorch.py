"""Run in the pytorch image: trains a small net on the digits in /out/digits.npz and exports it in both forms.

Leaves /out/exported, /out/script and /out/expected.npz: what PyTorch itself answers to the last rows.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

OUT = Path("/out")
KEPT = 200


def trained(images: torch.Tensor, labels: torch.Tensor) -> torch.nn.Module:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 64, 10),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    return net.eval()


def main() -> None:
    data = np.load(OUT / "digits.npz")
    images, labels = torch.from_numpy(data["images"]), torch.from_numpy(data["labels"])
    net = trained(images[:-KEPT], labels[:-KEPT])
    for name in ("exported", "script"):
        (OUT / name).mkdir()
    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(net, (images[:2],), dynamic_shapes=({0: rows},))
    torch.export.save(program, OUT / "exported" / "model.pt2")
    torch.jit.script(net).save(str(OUT / "script" / "model.pt"))
    signature = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]}
    (OUT / "script" / "signature.json").write_text(json.dumps(signature))
    with torch.inference_mode():
        logits = net(images[-KEPT:]).numpy()
    np.savez(OUT / "expected.npz", logits=logits)


main()
