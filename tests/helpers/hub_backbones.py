"""Tiny KerasHub backbones with random weights, one per family."""

from __future__ import annotations

from typing import Any

PX = 64
"""The height and width of their images."""

_VIT = {"patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 32}

CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ViTBackbone", _VIT | {"mlp_dim": 64}),
    "DeiT": ("DeiTBackbone", _VIT | {"intermediate_dim": 64}),
    "DINOv2": (
        "DINOV2Backbone",
        _VIT | {"intermediate_dim": 64, "position_embedding_shape": (112, 112, 3)},
    ),
    "DINOv3": ("DINOV3Backbone", _VIT | {"intermediate_dim": 64}),
    "SigLIP": ("SigLIPVisionEncoder", _VIT | {"intermediate_dim": 64}),
    "ResNet": (
        "ResNetBackbone",
        {
            "input_conv_filters": [64],
            "input_conv_kernel_sizes": [7],
            "stackwise_num_filters": [64, 64],
            "stackwise_num_blocks": [1, 1],
            "stackwise_num_strides": [1, 2],
            "block_type": "basic_block",
        },
    ),
    "EfficientNet": (
        "EfficientNetBackbone",
        {
            "stackwise_width_coefficients": [1.0] * 4,
            "stackwise_depth_coefficients": [1.0] * 4,
            "stackwise_kernel_sizes": [3, 3, 5, 3],
            "stackwise_num_repeats": [1, 2, 2, 1],
            "stackwise_input_filters": [16, 16, 24, 32],
            "stackwise_output_filters": [16, 24, 32, 48],
            "stackwise_expansion_ratios": [1, 4, 4, 6],
            "stackwise_squeeze_and_excite_ratios": [0.0, 0.0, 0.25, 0.25],
            "stackwise_strides": [1, 2, 2, 2],
            "stackwise_block_types": ["fused", "fused", "unfused", "unfused"],
            "stackwise_force_input_filters": [0] * 4,
            "stackwise_nores_option": [False] * 4,
        },
    ),
    "MobileNet": (
        "MobileNetBackbone",
        {
            "stackwise_expansion": [[24, 32], [48, 72]],
            "stackwise_num_blocks": [2, 2],
            "stackwise_num_filters": [[16, 16], [24, 24]],
            "stackwise_kernel_size": [[3, 3], [5, 5]],
            "stackwise_num_strides": [[2, 1], [2, 1]],
            "stackwise_se_ratio": [[None, None], [0.25, 0.25]],
            "stackwise_activation": [["relu"] * 2, ["hard_swish"] * 2],
            "stackwise_padding": [[1, 1], [2, 2]],
            "output_num_filters": 96,
            "input_activation": "hard_swish",
            "output_activation": "hard_swish",
            "input_num_filters": 16,
            "depthwise_filters": 8,
            "depthwise_stride": 2,
            "depthwise_residual": False,
            "squeeze_and_excite": 0.5,
            "last_layer_filter": 96,
        },
    ),
    "MobileNetV5": (
        "MobileNetV5Backbone",
        {
            "stackwise_block_types": [["er"], ["uir", "uir"], ["uir", "mqa"]],
            "stackwise_num_blocks": [1, 2, 2],
            "stackwise_num_filters": [[16], [32, 32], [64, 64]],
            "stackwise_strides": [[2], [2, 1], [2, 1]],
            "stackwise_act_layers": [["gelu"], ["gelu"] * 2, ["gelu"] * 2],
            "stackwise_exp_ratios": [[4.0], [4.0, 4.0], [4.0, 1.0]],
            "stackwise_se_ratios": [[0.0], [0.0, 0.0], [0.0, 0.0]],
            "stackwise_dw_kernel_sizes": [[0], [5, 0], [5, 0]],
            "stackwise_dw_start_kernel_sizes": [[0], [5, 7], [0, 0]],
            "stackwise_dw_end_kernel_sizes": [[0], [0, 0], [0, 0]],
            "stackwise_exp_kernel_sizes": [[3], [0, 0], [0, 0]],
            "stackwise_pw_kernel_sizes": [[1], [0, 0], [0, 0]],
            "stackwise_num_heads": [[0], [0, 0], [0, 2]],
            "stackwise_key_dims": [[0], [0, 0], [0, 16]],
            "stackwise_value_dims": [[0], [0, 0], [0, 16]],
            "stackwise_kv_strides": [[0], [0, 0], [0, 1]],
            "stackwise_use_cpe": [[False], [False, False], [False, False]],
            "use_msfa": False,
        },
    ),
    "Swin": (
        "SwinTransformerBackbone",
        {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4},
    ),
    "CSPNet": (
        "CSPNetBackbone",
        {
            "stem_filters": 16,
            "stem_kernel_size": 3,
            "stem_strides": 2,
            "stackwise_depth": [1, 2],
            "stackwise_strides": [2, 2],
            "stackwise_num_filters": [32, 64],
            "block_type": "dark_block",
            "stage_type": "csp",
            "bottle_ratio": [0.5],
            "block_ratio": [0.5],
        },
    ),
    "DenseNet": ("DenseNetBackbone", {"stackwise_num_repeats": [2, 2], "growth_rate": 8}),
    "VGG": (
        "VGGBackbone",
        {"stackwise_num_repeats": [1, 1, 2], "stackwise_num_filters": [16, 32, 64]},
    ),
    "MixTransformer": (
        "MiTBackbone",
        {
            "layerwise_depths": [1, 1],
            "num_layers": 2,
            "layerwise_num_heads": [1, 2],
            "layerwise_sr_ratios": [4, 1],
            "max_drop_path_rate": 0.1,
            "layerwise_patch_sizes": [7, 3],
            "layerwise_strides": [4, 2],
            "hidden_dims": [16, 32],
        },
    ),
    "HGNetV2": (
        "HGNetV2Backbone",
        {
            "depths": [1, 1],
            "embedding_size": 16,
            "hidden_sizes": [32, 64],
            "stem_channels": [3, 8, 16],
            "hidden_act": "relu",
            "use_learnable_affine_block": True,
            "stackwise_stage_filters": [(16, 8, 32, 1, 2, 3), (32, 16, 64, 1, 2, 5)],
            "apply_downsample": [False, True],
            "use_lightweight_conv_block": [False, True],
        },
    ),
    "Xception": (
        "XceptionBackbone",
        {"stackwise_conv_filters": [[16, 32], [32, 48]], "stackwise_pooling": [True, False]},
    ),
}
"""Each family's class in `keras_hub.models`, and the arguments of a tiny one."""


def build_backbone(family: str, px: int = PX) -> Any:
    """A backbone of a family, for images of `px` by `px` pixels."""
    import keras_hub

    name, arguments = CONFIGURATIONS[family]
    kind = getattr(keras_hub.models, name)
    shape = "input_shape" if family == "EfficientNet" else "image_shape"
    return kind(**arguments, **{shape: (px, px, 3)})
