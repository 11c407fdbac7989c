"""Mixture-of-Experts checkpoints as Hugging Face transformers computes them, with every
intermediate value in reach.

What: the module that golden.py, reference_stats.py and check_hf.py share. It opens a checkpoint of any
    family of routing.py in float32 (transformers untouched, with one exception below) or float64
    (exact.py), masks or slices away removed experts, skips dropped layers, and records what happened
    inside. fp8 checkpoints are dequantised first (fp8.py).
Usage: imported.
Needs: torch, transformers 5 (one fused `experts` module per layer, behind a router module).
"""

import copy
import functools
import json

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import exact
import fp8
import routing


def load(path, dtype=torch.float32):
    """The model of a checkpoint directory, in evaluation mode on the CPU."""
    return load_with_report(path, dtype)[0]


def load_with_report(path, dtype=torch.float32):
    """The model, and which tensors were missing, left over or of another shape."""
    with fp8.readable(path) as directory:
        config = json.loads((directory / "config.json").read_text())
        family = AutoModelForImageTextToText if "vision_config" in config else AutoModelForCausalLM
        # "eager" is the plain loop over experts; other implementations differ in rounding.
        model, report = family.from_pretrained(
            directory, dtype=dtype, experts_implementation="eager", attn_implementation="sdpa",
            local_files_only=True, output_loading_info=True,
        )  # fmt: skip
    model.eval()
    if config["model_type"] == "phimoe":
        _choose_long_factors(model.model.rotary_emb)
    if config["model_type"] == "minimax_m2":
        for layer in layers(model):
            _complete_router(layer.mlp)
    if dtype == torch.float64:
        exact.compute_in_float64(model)
    return model, report


def _choose_long_factors(rotary):
    """transformers 5.23 gives Phi-3.5-MoE the short rotary factors at any length (but the long mscale);
    its authors' code, and transformers 4.57, take the long factors beyond the original context."""
    forward = rotary.forward

    def by_length(x, position_ids):
        length = int(position_ids.max()) + 1
        rotary.rope_init_fn = functools.partial(ROPE_INIT_FUNCTIONS[rotary.rope_type], seq_len=length)
        return forward(x, position_ids)

    rotary.forward = by_length


def _complete_router(mlp):
    """MiniMax-M2's router is handed its bias by the MoE block, which owns it, and has no options:
    it gets what routing.py finds on the others, beside its parameters and buffers."""
    vars(mlp.gate).update(
        e_score_correction_bias=mlp.e_score_correction_bias,
        norm_topk_prob=True, num_group=1, topk_group=1, routed_scaling_factor=1.0,
    )  # fmt: skip


def text_config(model):
    return model.config.get_text_config()


def layers(model):
    return getattr(model.model, "language_model", model.model).layers


def router(layer):
    """The router module of a decoder layer, None if its MLP is dense."""
    return next(filter(routing.is_router, layer.mlp.children()), None)


def experts_per_layer(model):
    """Number of experts of every layer, 0 for dense ones."""
    return [0 if router(layer) is None else router(layer).weight.shape[0] for layer in layers(model)]


def removed_experts(layer, kept):
    """bool [E]: True for every expert that is not in `kept`."""
    removed = torch.ones(router(layer).weight.shape[0], dtype=torch.bool)
    removed[list(kept)] = False
    return removed


def mask_experts(model, kept):
    """Makes the experts not in kept[layer] impossible to choose: tokens re-route among the others.

    kept: layer index -> expert indices; layers that are absent keep all their experts. The removed
    experts' choice scores become minus infinity; the router logits themselves stay as they are.
    """
    for index, experts in kept.items():
        removed = removed_experts(layers(model)[index], experts)

        def reroute(module, _inputs, output, removed=removed):
            chosen, gates, _ = routing.route(module, output[0], removed)
            return output[0], gates, chosen

        router(layers(model)[index]).register_forward_hook(reroute)


def slice_experts(model, kept):
    """A new model of the same class with fewer experts: really sliced weights, rewritten configuration.

    kept: MoE layer index -> expert indices, the same number in every MoE layer.
    """
    config = copy.deepcopy(model.config)
    counts = [name for name in _EXPERT_COUNTS if hasattr(config.get_text_config(), name)]
    for name in counts:
        setattr(config.get_text_config(), name, len(next(iter(kept.values()))))
    state = model.state_dict()
    prefix = next(name for name, module in model.named_modules() if module is layers(model))
    for index, experts in kept.items():
        for name in state:
            if name.startswith(f"{prefix}.{index}.mlp.") and _is_per_expert(name):
                state[name] = state[name][list(experts)]
    small = type(model)._from_config(
        config, dtype=model.dtype, experts_implementation="eager", attn_implementation="sdpa"
    )
    small.load_state_dict(state)
    return small.eval()


_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
_ROUTER_PARTS = ("gate", "router", "e_score_correction_bias")


def _is_per_expert(name):
    return ".experts." in name or name.split(".mlp.")[1].split(".")[0] in _ROUTER_PARTS


def drop_layers(model, dropped):
    """Makes the given decoder layers pass their input through."""
    for index in dropped:
        layers(model)[index].forward = lambda hidden_states, **_: hidden_states


class Trace:
    """What one forward pass of `model` did; filled by :func:`observe`.

    hidden[l] [S, T, H]: input of layer l; hidden[L]: output of the last, before the final norm.
    middle[l] [S, T, H]: after the attention sublayer of layer l.
    mlp_input[l] [S*T, H]: normalised input of router and experts.
    router_logits[l] [S*T, E], chosen[l] [S*T, k], gates[l] [S*T, k]: None for dense layers;
        the choice ordered by falling gate value.
    logits [S, T, V].
    """

    def __init__(self, count):
        self.hidden, self.middle, self.mlp_input = [None] * (count + 1), [None] * count, [None] * count
        self.router_logits, self.chosen, self.gates = [None] * count, [None] * count, [None] * count
        self.logits = None


@torch.inference_mode()
def observe(model, input_ids):
    """Runs `model` on input_ids [S, T] (all of one length, so nothing is padded)."""
    trace, hooks = Trace(len(layers(model))), []
    for index, layer in enumerate(layers(model)):

        def block(_module, inputs, output, index=index):
            trace.hidden[index], trace.hidden[index + 1] = inputs[0], output

        def middle(_module, inputs, index=index):
            trace.middle[index] = inputs[0]

        def mlp(_module, inputs, index=index):
            trace.mlp_input[index] = inputs[0].reshape(-1, inputs[0].shape[-1])

        def routing(_module, _inputs, output, index=index):
            trace.router_logits[index], gates, chosen = output
            trace.gates[index], order = gates.sort(dim=-1, descending=True, stable=True)
            trace.chosen[index] = chosen.gather(-1, order)

        hooks.append(layer.register_forward_hook(block))
        hooks.append(layer.post_attention_layernorm.register_forward_pre_hook(middle))
        hooks.append(layer.mlp.register_forward_pre_hook(mlp))
        if router(layer) is not None:
            hooks.append(router(layer).register_forward_hook(routing))
    trace.logits = model(input_ids=input_ids, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return trace


def expert_output(layer, expert, x):
    """Un-gated output [n, H] of one expert for inputs [n, H]."""
    gate, up = F.linear(x, layer.mlp.experts.gate_up_proj[expert]).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, layer.mlp.experts.down_proj[expert])
