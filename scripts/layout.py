"""What a checkpoint directory holds beside its weights: configuration, tokenizer, chat template.

What: the module that golden.py, train_demo.py and synthetic_checkpoint.py share, so that every
    checkpoint they write is read alike by transformers, mistral.rs and router-stats.
Usage: imported.
Needs: nothing.
"""

import json

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # ids 0, 1, 2
END_OF_TEXT, _, END_OF_TURN = range(3)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# What every config.json below has, in the classic flat spelling: transformers 5 would nest `rope_theta`,
# which mistral.rs does not find.
_COMMON = {
    "attention_dropout": 0.0,
    "bos_token_id": END_OF_TEXT,
    "eos_token_id": END_OF_TURN,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "use_cache": True,
}
_BALANCED = {"output_router_logits": False, "router_aux_loss_coef": 0.001}
_QWEN = _BALANCED | {
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "sliding_window": None,
    "use_sliding_window": False,
}
_DEEPSEEK = {
    "attention_bias": False,
    "aux_loss_alpha": 0.001,
    "ep_size": 1,
    "moe_layer_freq": 1,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-6,
    "seq_aux": True,
}
_NO_AUXILIARY_LOSS = {"norm_topk_prob": True, "scoring_func": "sigmoid", "topk_method": "noaux_tc"}
_GLM = {"rms_norm_eps": 1e-5, "rope_scaling": None, "n_group": 1, "topk_group": 1, "norm_topk_prob": True}

# By model_type: the class named in config.json, and what published checkpoints of the family have in common.
_FAMILIES = {
    "deepseek_v2": ("DeepseekV2ForCausalLM", _DEEPSEEK | {"norm_topk_prob": False, "scoring_func": "softmax"}),
    "deepseek_v3": ("DeepseekV3ForCausalLM", _DEEPSEEK | _NO_AUXILIARY_LOSS),
    "glm4_moe": ("Glm4MoeForCausalLM", _GLM),
    "glm4_moe_lite": ("Glm4MoeLiteForCausalLM", _GLM | {"attention_bias": False, "topk_method": "noaux_tc"}),
    "kimi_k2": ("DeepseekV3ForCausalLM", _DEEPSEEK | _NO_AUXILIARY_LOSS),
    "minimax_m2": (
        "MiniMaxM2ForCausalLM",
        {
            "num_mtp_modules": 3,
            "qk_norm_type": "per_layer",
            "rms_norm_eps": 1e-6,
            "scoring_func": "sigmoid",
            "shared_intermediate_size": 0,
            "use_mtp": True,
            "use_qk_norm": True,
            "use_routing_bias": True,
        },
    ),
    "mixtral": (
        "MixtralForCausalLM",
        _BALANCED | {"rms_norm_eps": 1e-5, "router_jitter_noise": 0.0, "sliding_window": None},
    ),
    "olmoe": ("OlmoeForCausalLM", _BALANCED | {"attention_bias": False, "rms_norm_eps": 1e-5, "rope_scaling": None}),
    "phimoe": (
        "PhiMoEForCausalLM",
        _BALANCED
        | {
            "attention_bias": True,
            "input_jitter_noise": 0.01,
            "lm_head_bias": True,
            "rms_norm_eps": 1e-5,
            "router_jitter_noise": 0.01,
        },
    ),
    "qwen2_moe": ("Qwen2MoeForCausalLM", _QWEN | {"norm_topk_prob": False}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", _QWEN | {"attention_bias": False, "norm_topk_prob": True}),
}


def model_config(model_type, **fields):
    """A config.json of a family; sizes and whatever differs from its defaults in `fields`."""
    architecture, defaults = _FAMILIES[model_type]
    return _COMMON | {"architectures": [architecture], "model_type": model_type} | defaults | fields


def qwen3_vl_moe_config(text, vision, **fields):
    """A Qwen3-VL-MoE config.json: the language model's fields, the vision tower's, and those around both."""
    text = model_config("qwen3_moe", **text) | {"model_type": "qwen3_vl_moe_text"}
    for absent in ("architectures", "max_window_layers", "sliding_window", "torch_dtype", "use_sliding_window"):
        text.pop(absent, None)
    return fields | {
        "architectures": ["Qwen3VLMoeForConditionalGeneration"],
        "model_type": "qwen3_vl_moe",
        "text_config": text,
        "tie_word_embeddings": False,
        "vision_config": {"hidden_act": "gelu_pytorch_tanh", "initializer_range": 0.02, "model_type": "qwen3_vl_moe"}
        | vision,
    }


def write_tokenizer_config(out, max_positions):
    write_json(out / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL_TOKENS[END_OF_TEXT],
        "eos_token": SPECIAL_TOKENS[END_OF_TURN],
        "pad_token": SPECIAL_TOKENS[END_OF_TEXT],
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_positions,
        "chat_template": CHAT_TEMPLATE,
    })  # fmt: skip


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
