"""Small MoE language models of three families, ready to train.

What: the module that says what train_demo.py can train: one function per family from its arguments to a
    config.json, and one model whose router choices a loss can see. Families differ in how they route:
      qwen3_moe    softmax, top-k gate values renormalised; no shared expert
      deepseek_v2  softmax, gate values not renormalised; shared experts, a dense first layer, latent attention
      glm4_moe     sigmoid, chosen by score + bias, renormalised; a shared expert, a dense first layer
Usage: imported; `FAMILIES[name]`, `Trainable(family, config)`.
Needs: torch, transformers 5.
"""

import math

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import experts
import layout

BALANCE_WEIGHT = {"softmax": 0.01, "sigmoid": 0.0005}
BIAS_RATE = 0.003  # of the selection bias, per step (DeepSeek-V3, arXiv 2412.19437, section 2.1.2)


def _common(args, vocab):
    return {
        "head_dim": args.head_dim, "hidden_size": args.hidden, "max_position_embeddings": 2048,
        "moe_intermediate_size": args.intermediate, "num_attention_heads": args.heads,
        "num_experts_per_tok": args.top_k, "num_hidden_layers": args.layers, "num_key_value_heads": args.kv_heads,
        "pad_token_id": layout.END_OF_TEXT, "rope_theta": 10000.0, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16", "vocab_size": vocab,
    }  # fmt: skip


def _qwen3_moe(args, vocab):
    return layout.model_config(
        "qwen3_moe", **_common(args, vocab), intermediate_size=args.intermediate * args.top_k,
        max_window_layers=args.layers, num_experts=args.experts,
    )  # fmt: skip


def _with_shared(args):
    """A dense first layer and shared experts; every layer's MLP costs a token about as much."""
    return {
        "first_k_dense_replace": 1, "intermediate_size": args.intermediate * (args.top_k + args.shared),
        "n_group": 1, "n_routed_experts": args.experts, "n_shared_experts": args.shared, "topk_group": 1,
        "routed_scaling_factor": args.scaling,
    }  # fmt: skip


def _deepseek_v2(args, vocab):
    latent = {
        "head_dim": args.head_dim // 2, "kv_lora_rank": args.hidden // 2, "q_lora_rank": None,
        "num_key_value_heads": args.heads, "qk_nope_head_dim": args.head_dim // 2,
        "qk_rope_head_dim": args.head_dim // 2, "v_head_dim": args.head_dim, "topk_method": "greedy",
        "rope_scaling": None,
    }  # fmt: skip
    return layout.model_config("deepseek_v2", **_common(args, vocab) | _with_shared(args) | latent)


def _glm4_moe(args, vocab):
    return layout.model_config(
        "glm4_moe", **_common(args, vocab), **_with_shared(args), attention_bias=True, num_nextn_predict_layers=0,
        partial_rotary_factor=0.5, use_qk_norm=True,
    )  # fmt: skip


FAMILIES = {"qwen3_moe": _qwen3_moe, "deepseek_v2": _deepseek_v2, "glm4_moe": _glm4_moe}


class Trainable:
    """A model from scratch, and what its routers chose in the last forward pass."""

    def __init__(self, config):
        experts.register()
        fields = {key: value for key, value in config.items() if key not in ("torch_dtype", "architectures")}
        # transformers 5 reads rotary settings from one field.
        fields["rope_parameters"] = {"rope_type": "default", "rope_theta": config["rope_theta"]}
        if "partial_rotary_factor" in config:
            fields["rope_parameters"]["partial_rotary_factor"] = config["partial_rotary_factor"]
        self.config = AutoConfig.for_model(fields.pop("model_type"), **fields)
        self.model = AutoModelForCausalLM.from_config(self.config, experts_implementation="sorted")
        self.kind = "sigmoid" if config["model_type"] == "glm4_moe" else "softmax"
        self.routers, self.routed = [], []
        with torch.no_grad():
            for layer in self.model.model.layers:
                # Keep the residual stream's variance independent of depth.
                layer.self_attn.o_proj.weight /= math.sqrt(2 * len(self.model.model.layers))
                if hasattr(layer.mlp, "experts"):
                    layer.mlp.experts.down_proj /= math.sqrt(2 * len(self.model.model.layers))
                    # Routers are plain parameters: no initialiser of transformers' own is relied upon.
                    torch.nn.init.normal_(layer.mlp.gate.weight, std=0.02)
                    layer.mlp.gate.register_forward_hook(self._see)
                    self.routers.append(layer.mlp.gate)

    def _see(self, _router, _inputs, output):
        logits, _, chosen = output
        self.routed.append((logits.float(), chosen))

    def logits(self, tokens):
        self.routed = []
        return self.model(input_ids=tokens, use_cache=False).logits

    def balance_loss(self):
        """E * sum over experts of (share of tokens routed) * (mean probability); 1 if perfectly even."""
        losses = []
        for logits, chosen in self.routed:
            scores = logits.softmax(-1) if self.kind == "softmax" else logits.sigmoid()
            probabilities = scores / scores.sum(-1, keepdim=True)
            share = self._share(chosen)
            losses.append(logits.shape[-1] * (share * probabilities.mean(0)).sum())
        return torch.stack(losses).mean()

    @torch.no_grad()
    def balance_biases(self):
        """Moves selection biases of sigmoid routers towards experts that got too few tokens."""
        if self.kind == "sigmoid":
            for router, (_, chosen) in zip(self.routers, self.routed):
                share = self._share(chosen)
                router.e_score_correction_bias += BIAS_RATE * (share.mean() - share).sign()

    def _share(self, chosen):
        experts_ = self.routers[0].weight.shape[0]
        return torch.bincount(chosen.flatten(), minlength=experts_) / chosen.numel()
