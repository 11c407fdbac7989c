"""How routers choose experts and what gate values they apply: one rule per kind of router.

What: the module that observed.py, exact.py and reference_stats.py share. transformers computes routing
    inside its router modules, in float32 and over all experts; here the same rules work in the dtype
    of the router logits, can leave experts out, and say how clear each choice was.
Usage: imported.
Needs: torch.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F


class Routing(NamedTuple):
    """Routing of T tokens to k experts, ordered by falling gate value; ties as the router chose them."""

    chosen: torch.Tensor  # [T, k] expert indices
    gates: torch.Tensor  # [T, k] gate values as applied: renormalised and scaled
    margin: torch.Tensor  # [T] smallest distance of a choice score from choosing otherwise


def is_router(module):
    return type(module).__name__.lower().endswith("topkrouter")


def route(module, logits, removed=None):
    """Routing of router logits [T, E], as the router `module` of transformers is configured.

    removed: bool [E], experts that must not be chosen. The others are treated as if these did not
    exist: softmax and group scores are computed over what is left.
    """
    if removed is None:
        removed = torch.zeros(logits.shape[-1], dtype=torch.bool)
    chosen, gates, margin = _RULES[_kind(module)](module, logits, removed)
    gates, order = gates.sort(dim=-1, descending=True, stable=True)
    return Routing(chosen.gather(-1, order), gates.to(logits.dtype), margin)


def scores(module, logits):
    """What the router thinks of every expert [T, E], chosen or not: sigmoid or softmax, no bias, no scaling."""
    return logits.sigmoid() if _RULES[_kind(module)] is _biased_sigmoid else logits.softmax(-1)


def _softmax(module, logits, removed):
    """Best k probabilities; renormalised or not."""
    logits = logits.masked_fill(removed, -torch.inf)
    chosen, margin = _best(logits, module.top_k)
    gates = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)).gather(-1, chosen)
    if getattr(module, "norm_topk_prob", True):  # Mixtral and Qwen3-VL have no such field and always renormalise
        gates = gates / gates.sum(-1, keepdim=True)
    return chosen, gates, margin


def _grouped_softmax(module, logits, removed):
    """Best k probabilities within the groups that hold the most probable experts; scaled, never renormalised."""
    logits = logits.masked_fill(removed, -torch.inf)
    open_logits, group_margin = logits, torch.tensor(torch.inf)
    if module.topk_method == "group_limited_greedy":
        open_logits, group_margin = _best_groups(module, logits, lambda groups: groups.amax(-1))
    chosen, margin = _best(open_logits, module.top_k)
    gates = logits.softmax(-1).gather(-1, chosen)
    return chosen, gates * module.routed_scaling_factor, torch.minimum(margin, group_margin)


def _biased_sigmoid(module, logits, removed):
    """Chosen by sigmoid + bias within the groups with the best two; the gate value is the sigmoid alone."""
    sigmoid = logits.sigmoid()
    choice = (sigmoid + module.e_score_correction_bias).masked_fill(removed, -torch.inf)
    choice, group_margin = _best_groups(module, choice, lambda groups: groups.topk(2, dim=-1).values.sum(-1))
    chosen, margin = _best(choice, module.top_k)
    gates = sigmoid.gather(-1, chosen)
    if module.norm_topk_prob:
        gates = gates / (gates.sum(-1, keepdim=True) + 1e-20)
    return chosen, gates * module.routed_scaling_factor, torch.minimum(margin, group_margin)


def _sparsemixer(module, logits, removed):
    """Best expert, twice: its share among the logits within 2 x jitter of it, then without it the same again."""
    logits = logits.masked_fill(removed, -torch.inf)
    left, chosen, gates, margins = logits, [], [], []
    for _ in range(2):  # transformers ignores num_experts_per_tok here
        index, margin = _best(left, 1)
        best = left.gather(-1, index)
        reach = 2 * module.router_jitter_noise * logits.abs().clamp(min=best)
        far = best - logits > reach
        gates.append(left.masked_fill(far, -torch.inf).softmax(-1).gather(-1, index))
        left = left.scatter(-1, index, -torch.inf)
        distance = (best - logits - reach).abs().masked_fill(left == -torch.inf, torch.inf)
        margins += [margin, distance.amin(-1)]
        chosen.append(index)
    return torch.cat(chosen, -1), torch.cat(gates, -1), torch.stack(margins).amin(0)


_RULES = {
    "deepseekv2": _grouped_softmax,
    "deepseekv3": _biased_sigmoid,
    "glm4moe": _biased_sigmoid,
    "glm4moelite": _biased_sigmoid,
    "minimaxm2": _biased_sigmoid,
    "mixtral": _softmax,
    "olmoe": _softmax,
    "phimoe": _sparsemixer,
    "qwen2moe": _softmax,
    "qwen3moe": _softmax,
    "qwen3vlmoetext": _softmax,
}


def _kind(module):
    return type(module).__name__.lower().removesuffix("topkrouter")


def _best(values, k):
    """Indices of the k best of values [T, n], best first, and how far the next one is behind the k-th."""
    best, index = F.pad(values, (0, 1), value=-torch.inf).topk(k + 1, dim=-1)
    return index[:, :k], best[:, k - 1] - best[:, k]


def _best_groups(module, values, score):
    """Values [T, E] with all groups but the best at minus infinity, and the margin of that choice."""
    groups = values.view(len(values), module.num_group, -1)
    index, margin = _best(score(groups), module.topk_group)
    closed = torch.ones(groups.shape[:2], dtype=torch.bool).scatter(-1, index, False)
    return groups.masked_fill(closed[..., None], -torch.inf).flatten(1), margin
