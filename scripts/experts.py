"""Routed experts only, tokens sorted by expert: an experts implementation for transformers 5.

What: the module that baseline_calibrate.py and train_demo.py share. Faster on a CPU than the
    implementations transformers brings, and differentiable.
Usage: imported; `register()`, then load with experts_implementation="sorted".
Needs: torch, transformers 5 for `register`.
"""

import torch
import torch.nn.functional as F


def sorted_experts(module, x, chosen, gates):
    """Gate-weighted sum [T, H] of the outputs of the chosen experts [T, k] for inputs x [T, H].

    If the module has a function `on_output`, it is called with (expert, un-gated output [n, H]) for
    every expert some token was routed to; tokens come slot by slot, in order.
    """
    expert, order = chosen.T.flatten().sort(stable=True)
    token = order % len(x)
    counts = torch.bincount(expert, minlength=len(module.down_proj)).tolist()
    on_output = getattr(module, "on_output", None)
    outputs = []
    # Unbound once: indexing expert by expert would make the backward pass fill a whole stack for each.
    weights = zip(module.gate_up_proj.unbind(0), module.down_proj.unbind(0))
    for number, (rows, (gate_up, down)) in enumerate(zip(x[token].split(counts), weights)):
        if len(rows):
            gate, up = F.linear(rows, gate_up).chunk(2, dim=-1)
            outputs.append(F.linear(F.silu(gate) * up, down))
            if on_output is not None:
                on_output(number, outputs[-1])
    weighted = torch.cat(outputs) * gates.T.flatten()[order, None]
    return torch.zeros_like(x).index_add_(0, token, weighted.to(x.dtype))


def register():
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register("sorted", sorted_experts)
