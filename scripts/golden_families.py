"""The tiny checkpoints under tests/golden: one entry each.

What: the table that golden.py works through. Every entry has
    config   its config.json, in the spelling of published checkpoints;
    seed     of the weights, chosen so that every choice of experts is clear by more than golden.MARGIN;
    kept     the experts that stay in golden_pruned.safetensors, by layer; absent layers are dense;
    holds    the name of one of its tensors, as published checkpoints spell it.
Usage: imported.
Needs: nothing.
"""

import layout

COMMON = {
    "hidden_size": 32, "max_position_embeddings": 512, "num_attention_heads": 4, "num_experts_per_tok": 2,
    "num_key_value_heads": 2, "torch_dtype": "float32", "vocab_size": 264,
}  # fmt: skip
# Multi-head latent attention; ranks and head sizes differ, so that none can be taken for another.
LATENT = COMMON | {
    "first_k_dense_replace": 1, "intermediate_size": 40, "kv_lora_rank": 16, "moe_intermediate_size": 8,
    "num_hidden_layers": 3, "num_key_value_heads": 4, "q_lora_rank": 24, "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8, "v_head_dim": 10,
}  # fmt: skip
PHIMOE = COMMON | {
    "intermediate_size": 8, "num_hidden_layers": 3, "num_local_experts": 16, "rope_theta": 10000.0,
}  # fmt: skip


def yarn(**fields):
    return {
        "beta_fast": 32, "beta_slow": 1, "factor": 4, "original_max_position_embeddings": 128, "type": "yarn",
    } | fields  # fmt: skip


def longrope(original_context, long_mscale):
    return {
        "original_max_position_embeddings": original_context,
        "rope_scaling": {
            "long_factor": [1.1, 2.5, 7.0, 16.0],
            "long_mscale": long_mscale,
            "original_max_position_embeddings": original_context,
            "short_factor": [1.0, 1.05, 1.3, 2.0],
            "short_mscale": 1.15,
            "type": "longrope",
        },
    }


def in_groups(size, dropped):
    """All experts but dropped[g] of each group g of `size`, numbered within the group."""
    return [group * size + i for group, out in enumerate(dropped) for i in range(size) if i not in out]


FAMILIES = {
    "qwen3_moe": {
        "seed": 12,
        "kept": {0: [0, 2, 3, 5, 7], 2: [1, 2, 4, 5, 6], 3: [0, 1, 3, 6, 7]},
        "holds": "model.layers.2.mlp.experts.7.gate_proj.weight",
        "config": layout.model_config(
            "qwen3_moe", **COMMON, head_dim=16, intermediate_size=40, max_window_layers=4, mlp_only_layers=[1],
            moe_intermediate_size=16, num_experts=8, num_hidden_layers=4, rope_theta=50000.0,
        ),
    },
    "mixtral": {
        "seed": 24,
        "kept": {0: [0, 1, 3, 4], 1: [1, 2, 4, 5], 2: [0, 2, 3, 5]},
        "holds": "model.layers.2.block_sparse_moe.experts.5.w1.weight",
        "config": layout.model_config(
            "mixtral", **COMMON, intermediate_size=24, num_hidden_layers=3, num_local_experts=6, rope_theta=20000.0,
        ),
    },
    "deepseek_v3": {
        "seed": 1066,
        "kept": {1: in_groups(4, [[1], [3], [0], [2]]), 2: in_groups(4, [[2], [2], [3], [0]])},
        "holds": "model.layers.3.shared_head.norm.weight",
        "config": layout.model_config(
            "deepseek_v3",
            **LATENT | {
                "n_group": 4, "n_routed_experts": 16, "n_shared_experts": 1, "num_experts_per_tok": 4,
                "num_nextn_predict_layers": 1, "rope_scaling": yarn(mscale=1.0, mscale_all_dim=1.0),
                "rope_theta": 10000, "routed_scaling_factor": 2.5, "topk_group": 2,
            },
        ),
    },
    "glm4_moe": {
        "seed": 1264,
        "kept": {1: [0, 2, 3, 5, 7], 2: [1, 3, 4, 6, 7]},
        "holds": "model.layers.3.eh_proj.weight",
        "config": layout.model_config(
            "glm4_moe", **COMMON, attention_bias=True, first_k_dense_replace=1, head_dim=16, intermediate_size=40,
            moe_intermediate_size=12, n_routed_experts=8, n_shared_experts=1, num_hidden_layers=3,
            num_nextn_predict_layers=1, partial_rotary_factor=0.5, rope_theta=1000000, routed_scaling_factor=1.5,
            use_qk_norm=True,
        ),
    },
    "olmoe": {
        "seed": 1537,
        "kept": {0: [0, 2, 3, 5, 7], 1: [1, 2, 4, 5, 6], 2: [0, 1, 3, 6, 7]},
        "holds": "model.layers.2.mlp.experts.7.down_proj.weight",
        "config": layout.model_config(
            "olmoe", **COMMON | {
                "clip_qkv": 1.5, "intermediate_size": 12, "norm_topk_prob": False, "num_experts": 8,
                "num_experts_per_tok": 3, "num_hidden_layers": 3, "rope_theta": 10000.0,
            },
        ),
    },
    "minimax_m2": {
        "seed": 1643,
        "kept": {0: [0, 2, 3, 5, 7], 1: [1, 2, 4, 5, 6], 2: [0, 1, 3, 6, 7]},
        "holds": "model.layers.2.block_sparse_moe.e_score_correction_bias",
        "config": layout.model_config(
            "minimax_m2", **COMMON | {
                "attn_type_list": [1, 1, 1], "head_dim": 16, "intermediate_size": 12, "num_experts_per_tok": 3,
                "num_hidden_layers": 3, "num_local_experts": 8, "rope_theta": 5000000, "rotary_dim": 8,
            },
        ),
    },
    "qwen2_moe": {
        "seed": 1198,
        "kept": {0: [0, 2, 3, 5, 7], 2: [1, 2, 4, 5, 6]},
        "holds": "model.layers.2.mlp.shared_expert_gate.weight",
        "config": layout.model_config(
            "qwen2_moe", **COMMON, intermediate_size=40, max_window_layers=3, mlp_only_layers=[1],
            moe_intermediate_size=12, num_experts=8, num_hidden_layers=3, rope_theta=1000000.0,
            shared_expert_intermediate_size=20,
        ),
    },
    "deepseek_v2": {
        "seed": 1035,
        "kept": {1: in_groups(4, [[0, 3], [1, 2], [0, 1]]), 2: in_groups(4, [[2, 3], [0, 2], [1, 3]])},
        "holds": "model.layers.2.mlp.shared_experts.up_proj.weight",
        "config": layout.model_config(
            "deepseek_v2",
            **LATENT | {
                "n_group": 3, "n_routed_experts": 12, "n_shared_experts": 2, "num_experts_per_tok": 3,
                "q_lora_rank": None, "rms_norm_eps": 1e-3,  # as a published one never has: latent norms keep 1e-6
                "rope_scaling": yarn(mscale=0.707, mscale_all_dim=0.707), "rope_theta": 10000,
                "routed_scaling_factor": 1.5, "topk_group": 2, "topk_method": "group_limited_greedy",
            },
        ),
    },
    "deepseek_v2_lite": {
        "seed": 6,
        "kept": {1: [0, 2, 3, 5, 7], 2: [1, 3, 4, 6, 7]},
        "holds": "model.layers.2.mlp.shared_experts.up_proj.weight",
        "config": layout.model_config(
            "deepseek_v2",
            **LATENT | {
                "n_group": 1, "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 3,
                "q_lora_rank": None, "rope_scaling": yarn(mscale=0.707, mscale_all_dim=0.707), "rope_theta": 10000,
                "routed_scaling_factor": 1.0, "topk_group": 1, "topk_method": "greedy",
            },
        ),
    },
    # Beside the margin, this seed keeps every second-best router logit positive and none between 0.98 and 1 / 1.02
    # of the best: elsewhere mistral.rs masks other logits than transformers.
    "phimoe": {
        "seed": 30776,
        "kept": {
            0: [0, 2, 3, 5, 7, 8, 11, 12, 14, 15], 1: [1, 2, 4, 5, 6, 9, 10, 11, 13, 14],
            2: [0, 1, 3, 6, 7, 8, 9, 12, 13, 15],
        },
        "holds": "model.layers.2.block_sparse_moe.experts.15.w3.weight",
        # mistral.rs computes the mscale from a ratio of contexts; 195 makes that a ratio of whole numbers.
        "config": layout.model_config("phimoe", **PHIMOE, **longrope(195, 1.15)),
    },
    "kimi_k2": {
        "seed": 78,
        "kept": {1: [0, 2, 3, 5, 7], 2: [1, 3, 4, 6, 7]},
        "holds": "model.layers.2.mlp.experts.7.down_proj.weight_scale_inv",
        "config": layout.model_config(
            "kimi_k2",
            **LATENT | {
                "hidden_size": 40, "intermediate_size": 56, "kv_lora_rank": 20, "moe_intermediate_size": 24,
                "n_group": 1, "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 3,
                "num_nextn_predict_layers": 0, "rope_theta": 50000.0, "routed_scaling_factor": 2.827,
                "rope_scaling": yarn(beta_fast=1.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0),
                "topk_group": 1, "torch_dtype": "bfloat16", "v_head_dim": 20,  # so that mistral.rs runs it on a CPU
                "quantization_config": {
                    "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                    "weight_block_size": [16, 16],
                },
            },
        ),
    },
    "glm4_moe_lite": {
        "seed": 1059,
        "kept": {1: [0, 2, 3, 5, 7], 2: [1, 3, 4, 6, 7]},
        "holds": "model.layers.2.mlp.gate.e_score_correction_bias",
        "config": layout.model_config(
            "glm4_moe_lite",
            **LATENT | {
                "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 3, "num_nextn_predict_layers": 0,
                "partial_rotary_factor": 1.0, "rope_theta": 1000000, "routed_scaling_factor": 1.8, "v_head_dim": 20,
            },
        ),
    },
    "qwen3_vl_moe": {
        "seed": 15,
        "kept": {0: [0, 2, 3, 5, 7], 1: [1, 2, 4, 5, 6], 2: [0, 1, 3, 6, 7]},
        "holds": "model.language_model.layers.2.mlp.experts.gate_up_proj",
        "config": layout.qwen3_vl_moe_config(
            COMMON | {
                "dtype": "float32", "head_dim": 16, "intermediate_size": 40, "moe_intermediate_size": 12,
                "num_experts": 8, "num_hidden_layers": 3, "rope_theta": 5000000,
                "rope_scaling": {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"},
            },
            {
                "deepstack_visual_indexes": [1], "depth": 2, "hidden_size": 16, "in_channels": 3,
                "intermediate_size": 24, "num_heads": 2, "num_position_embeddings": 16, "out_hidden_size": 32,
                "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2,
            },
            image_token_id=260, video_token_id=261, vision_start_token_id=262, vision_end_token_id=263,
        ),
    },
    # Sequences longer than the original context: the long rotary factors and the long mscale.
    "phimoe_long": {
        "seed": 636,
        "holds": "model.layers.2.block_sparse_moe.experts.15.w3.weight",
        "config": layout.model_config("phimoe", **PHIMOE, **longrope(16, 1.25)),
    },
}  # fmt: skip
