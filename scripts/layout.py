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

# The classic flat spelling: transformers 5 would nest `rope_theta`, which mistral.rs does not find.
_COMMON = {
    "attention_dropout": 0.0,
    "bos_token_id": END_OF_TEXT,
    "eos_token_id": END_OF_TURN,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_cache": True,
}


def qwen3_moe_config(**fields):
    """A Qwen3-MoE config.json; sizes and whatever differs from the defaults in `fields`."""
    return (
        _COMMON
        | {
            "architectures": ["Qwen3MoeForCausalLM"],
            "model_type": "qwen3_moe",
            "attention_bias": False,
            "decoder_sparse_step": 1,
            "max_window_layers": fields["num_hidden_layers"],
            "mlp_only_layers": [],
            "norm_topk_prob": True,
            "rms_norm_eps": 1e-6,
            "rope_scaling": None,
            "use_sliding_window": False,
        }
        | fields
    )


def mixtral_config(**fields):
    """A Mixtral config.json; sizes and whatever differs from the defaults in `fields`."""
    return (
        _COMMON
        | {
            "architectures": ["MixtralForCausalLM"],
            "model_type": "mixtral",
            "rms_norm_eps": 1e-5,
            "router_jitter_noise": 0.0,
        }
        | fields
    )


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
