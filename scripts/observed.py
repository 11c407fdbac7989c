"""Mixture-of-Experts checkpoints as Hugging Face transformers computes them, with every
intermediate value in reach.

What: the module that golden.py, reference_stats.py and check_hf.py share. It opens a checkpoint in
    float32 (transformers untouched) or float64 (transformers keeps RMSNorm, softmax and rotary
    positions in float32 whatever the model's type; here they are float64 too), masks removed
    experts, skips dropped layers, and records what happened inside.
Usage: imported.
Needs: torch, transformers 5 (one fused `experts` module per layer, behind a router module).
"""

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM


def load(path, dtype=torch.float32):
    """The model of a checkpoint directory, in evaluation mode on the CPU."""
    # "eager" is the plain loop over experts; other implementations differ in rounding.
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, experts_implementation="eager", attn_implementation="sdpa", local_files_only=True
    ).eval()
    if dtype == torch.float64:
        _compute_in_float64(model)
    return model


def layers(model):
    return model.model.layers


def router(layer):
    """The router module of a decoder layer, None if its MLP is dense."""
    return getattr(layer.mlp, "gate", None)


def experts_per_layer(model):
    """Number of experts of every layer, 0 for dense ones."""
    return [0 if router(layer) is None else router(layer).weight.shape[0] for layer in layers(model)]


def route(module, logits):
    """Chosen experts [T, k] and gate values [T, k] of router logits [T, E], as `module` is configured."""
    probabilities = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    gates, chosen = probabilities.topk(module.top_k, dim=-1)
    if getattr(module, "norm_topk_prob", True):  # Mixtral has no such field and always renormalises
        gates = gates / gates.sum(-1, keepdim=True)
    return gates.to(logits.dtype), chosen


def _compute_in_float64(model):
    def rms_norm(module):
        return lambda x: F.rms_norm(x, (x.shape[-1],), module.weight, module.variance_epsilon)

    def topk_router(module):
        def forward(x):
            logits = F.linear(x.reshape(-1, x.shape[-1]), module.weight)
            return logits, *route(module, logits)

        return forward

    def rotary(module):
        config = module.config
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        exponent = torch.arange(0, dim, 2, dtype=torch.float64) / dim
        frequencies = config.rope_parameters["rope_theta"] ** -exponent

        def forward(x, position_ids):
            angles = position_ids[..., None].double() * frequencies
            angles = torch.cat((angles, angles), dim=-1)
            return angles.cos(), angles.sin()

        return forward

    exact = {"RMSNorm": rms_norm, "TopKRouter": topk_router, "RotaryEmbedding": rotary}
    for module in model.modules():
        for suffix, forward in exact.items():
            if type(module).__name__.endswith(suffix):
                module.forward = forward(module)


def mask_experts(model, kept):
    """Sets the router logits of all experts not in kept[layer] to minus infinity: tokens re-route.

    kept: layer index -> expert indices; layers that are absent keep all their experts.
    """
    for index, experts in kept.items():
        removed = torch.ones(router(layers(model)[index]).weight.shape[0], dtype=torch.bool)
        removed[list(experts)] = False

        def reroute(module, _inputs, output, removed=removed):
            logits = output[0].masked_fill(removed, -torch.inf)
            return logits, *route(module, logits)

        router(layers(model)[index]).register_forward_hook(reroute)


def drop_layers(model, dropped):
    """Makes the given decoder layers pass their input through."""
    for index in dropped:
        layers(model)[index].forward = lambda hidden_states, **_: hidden_states


class Trace:
    """What one forward pass of `model` did; filled by :func:`observe`.

    hidden[l] [S, T, H]: input of layer l; hidden[L]: output of the last, before the final norm.
    middle[l] [S, T, H]: after the attention sublayer of layer l.
    mlp_input[l] [S*T, H]: normalised input of router and experts.
    router_logits[l] [S*T, E], chosen[l] [S*T, k], gates[l] [S*T, k]: None for dense layers.
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
            trace.router_logits[index], trace.gates[index], trace.chosen[index] = output

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
