"""Vision, vision-language and speech models of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import transformers

from scripts.watched_kinds.rows import Row

VISION = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96} | {
    "image_size": 32, "patch_size": 8
}  # fmt: skip
TEXT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2} | {
    "intermediate_size": 96, "vocab_size": 99, "max_position_embeddings": 128, "head_dim": 16,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SPEECH = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96} | {
    "vocab_size": 99, "conv_dim": (32, 32), "conv_kernel": (10, 3), "conv_stride": (5, 2),
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "mask_time_prob": 0.0, "layerdrop": 0.0,
}  # fmt: skip
BOTH = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4} | {
    "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "vocab_size": 99, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "dropout": 0.0, "forced_eos_token_id": None,
}  # fmt: skip
IMAGE = 7  # the token that stands for a patch


def built(name: str, config: Any, attention: str = "sdpa") -> Any:
    """A small model with random weights, whose heads attend sharply."""
    torch.manual_seed(0)
    model = getattr(transformers, name)._from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for own, parameter in model.named_parameters():
            if parameter.dim() > 1 and any(part in own for part in ("q_proj", "k_proj", "query", ".key", "qkv")):
                parameter.mul_(4)
    return model


def pixels(*shape: int) -> torch.Tensor:
    """Images of random numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def tokens(*shape: int) -> torch.Tensor:
    """Random tokens."""
    return torch.randint(10, 96, shape, generator=torch.Generator().manual_seed(1))


def around(patches: int, batch: int = 1, token: int = IMAGE) -> torch.Tensor:
    """A text around an image."""
    text = tokens(batch, 4 + patches + 6)
    text[:, 4 : 4 + patches] = token
    return text


def vision(name: str, config: str, attention: str = "sdpa", **sizes: Any) -> Row:
    """A vision model on two images."""

    def make() -> tuple[Any, dict[str, Any]]:
        usual = {key: x for key, x in VISION.items() if not isinstance(getattr(getattr(transformers, config)(), key, 0), list | tuple)}
        settings = getattr(transformers, config)(**usual | sizes)
        return built(name, settings, attention), {"pixel_values": pixels(2, 3, 32, 32)}

    return Row("vision", name, make)


def vision_rows() -> Iterator[Row]:
    """Images alone."""
    yield vision("ViTModel", "ViTConfig")
    yield vision("DeiTModel", "DeiTConfig")
    yield vision("Dinov2Model", "Dinov2Config")
    yield vision("DINOv3ViTModel", "DINOv3ViTConfig")
    yield vision("SiglipVisionModel", "SiglipVisionConfig")
    yield vision("CLIPVisionModel", "CLIPVisionConfig")
    yield vision("BeitModel", "BeitConfig", use_relative_position_bias=True)
    yield vision("Data2VecVisionModel", "Data2VecVisionConfig", use_relative_position_bias=True)
    yield vision("SwinModel", "SwinConfig", embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=2, patch_size=4)
    yield vision("Swinv2Model", "Swinv2Config", "eager", embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=2, patch_size=4)
    yield vision("DPTModel", "DPTConfig", is_hybrid=False, backbone_out_indices=[0, 1])
    yield vision("IJepaModel", "IJepaConfig")
    yield vision("SegformerModel", "SegformerConfig", num_attention_heads=[1, 2, 4, 8])
    yield vision("PvtModel", "PvtConfig", "eager", num_attention_heads=[1, 2, 4, 8])
    sam = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "output_channels": 16, "window_size": 2, "global_attn_indexes": [1]}
    yield vision("SamVisionModel", "SamVisionConfig", **sam)

    def towers() -> tuple[Any, dict[str, Any]]:
        config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=32)
        mask = torch.ones(2, 9, dtype=torch.long)
        mask[1, 5:] = 0
        given = {"input_ids": tokens(2, 9), "attention_mask": mask, "pixel_values": pixels(2, 3, 32, 32)}
        return built("CLIPModel", config), given

    yield Row("vision", "CLIPModel, both towers", towers)

    def siglip() -> tuple[Any, dict[str, Any]]:
        config = transformers.SiglipConfig(text_config=TEXT, vision_config=VISION)
        return built("SiglipModel", config), {"input_ids": tokens(2, 9), "pixel_values": pixels(2, 3, 32, 32)}

    yield Row("vision", "SiglipModel, both towers", siglip)

    def detection() -> tuple[Any, dict[str, Any]]:
        backbone = transformers.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], out_features=["stage2"])
        config = transformers.DetrConfig(use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, num_queries=5, **{k: v for k, v in BOTH.items() if "token" not in k and k != "vocab_size"})
        return built("DetrModel", config, "eager"), {"pixel_values": pixels(1, 3, 64, 96)}

    yield Row("vision", "DetrModel, queries for boxes", detection)


def generated(row: Row, **options: Any) -> Row:
    """The same configuration with a greedy text."""

    def run(model: Any, given: dict[str, Any]) -> Any:
        return model.generate(**given, max_new_tokens=5, min_new_tokens=5, do_sample=False, **options)

    return replace(row, name=f"{row.name}, generate", run=run)


def language_rows() -> Iterator[Row]:
    """Images and text."""
    makers: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
        "LLaVA": llava, "Qwen2-VL": qwen("Qwen2VL"), "Qwen2.5-VL": qwen("Qwen2_5_VL"), "Qwen3-VL": qwen("Qwen3VL"),
        "Gemma 3": gemma3, "PaliGemma": paligemma, "Idefics3": idefics("Idefics3"), "SmolVLM": idefics("SmolVLM"),
        "mllama": mllama, "InternVL": internvl, "BLIP-2": blip2, "Pixtral": pixtral,
    }  # fmt: skip
    for name, make in makers.items():
        row = Row("vision-language", name, make)
        if name == "mllama":  # nobody sees the second tile
            row.pads = lambda given: {"cross": torch.arange(34)[None] < 17}
        yield row
        yield generated(row)


def text_config(kind: str, **more: Any) -> Any:
    return getattr(transformers, kind)(**TEXT | more)


def llava() -> tuple[Any, dict[str, Any]]:
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION), text_config=text_config("LlamaConfig"), image_token_index=IMAGE, image_token_id=IMAGE
    )
    given = {"input_ids": around(16, 2), "pixel_values": pixels(2, 3, 32, 32)}
    mask = torch.ones_like(given["input_ids"])
    mask[1, :3] = 0
    return built("LlavaForConditionalGeneration", config), given | {"attention_mask": mask}


def qwen(family: str) -> Callable[[], tuple[Any, dict[str, Any]]]:
    def make() -> tuple[Any, dict[str, Any]]:
        kind = getattr(transformers, f"{family}Config")
        sizes = {"depth": 2, "num_heads": 4, "patch_size": 4, "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3}
        if family == "Qwen2VL":
            sizes |= {"embed_dim": 64, "hidden_size": 64, "mlp_ratio": 2}
        else:
            sizes |= {"hidden_size": 64, "intermediate_size": 96, "out_hidden_size": 64}
        if family == "Qwen2_5_VL":
            sizes |= {"window_size": 16, "fullatt_block_indexes": [1]}
        if family == "Qwen3VL":
            sizes |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 64}
        rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
        config = kind(
            text_config=TEXT | {"rope_scaling": rope, "rope_parameters": rope},
            vision_config=sizes, image_token_id=IMAGE, video_token_id=8, vision_start_token_id=5, vision_end_token_id=6,
        )  # fmt: skip
        text = torch.cat([around(4 * 4), around(4 * 4)], 1)  # two images
        kinds = (text == IMAGE).long()
        given = {"input_ids": text, "attention_mask": torch.ones_like(text), "mm_token_type_ids": kinds}
        given |= {"pixel_values": pixels(2 * 64, 3 * 2 * 16), "image_grid_thw": torch.tensor([[1, 8, 8], [1, 8, 8]])}
        return built(f"{family}ForConditionalGeneration", config), given

    return make


def gemma3() -> tuple[Any, dict[str, Any]]:
    config = transformers.Gemma3Config(
        text_config=TEXT | {"sliding_window": 8, "sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
        vision_config=VISION, mm_tokens_per_image=4, image_token_index=IMAGE, image_token_id=IMAGE, boi_token_index=5, eoi_token_index=6,
    )  # fmt: skip
    text = around(4, 2)
    given = {"input_ids": text, "pixel_values": pixels(2, 3, 32, 32), "token_type_ids": (text == IMAGE).long()}
    return built("Gemma3ForConditionalGeneration", config), given | {"attention_mask": torch.ones_like(text)}


def paligemma() -> tuple[Any, dict[str, Any]]:
    config = transformers.PaliGemmaConfig(
        text_config=text_config("GemmaConfig"), vision_config=transformers.SiglipVisionConfig(**VISION | {"projection_dim": 64}),
        image_token_index=IMAGE, image_token_id=IMAGE, projection_dim=64, hidden_size=64,
    )  # fmt: skip
    given = {"input_ids": around(16, 2), "pixel_values": pixels(2, 3, 32, 32)}
    return built("PaliGemmaForConditionalGeneration", config), given | {"attention_mask": torch.ones(2, 26, dtype=torch.long)}


def idefics(family: str) -> Callable[[], tuple[Any, dict[str, Any]]]:
    def make() -> tuple[Any, dict[str, Any]]:
        config = getattr(transformers, f"{family}Config")(
            text_config=text_config("LlamaConfig"), vision_config=VISION, image_token_id=IMAGE, scale_factor=2, pad_token_id=0
        )
        text = around(4, 2)
        given = {"input_ids": text, "attention_mask": torch.ones_like(text), "pixel_values": pixels(2, 1, 3, 32, 32)}
        return built(f"{family}ForConditionalGeneration", config), given

    return make


def mllama() -> tuple[Any, dict[str, Any]]:
    vision = {k: v for k, v in VISION.items() if k not in ("num_attention_heads",)} | {
        "attention_heads": 4, "num_global_layers": 1, "intermediate_layers_indices": [0], "vision_output_dim": 128, "max_num_tiles": 2,
        "supported_aspect_ratios": [[1, 1], [1, 2]],
    }  # fmt: skip
    text = TEXT | {"num_hidden_layers": 3, "cross_attention_layers": [1]}
    config = transformers.MllamaConfig(text_config=text, vision_config=vision, image_token_index=IMAGE)
    given = {"input_ids": tokens(1, 9), "pixel_values": pixels(1, 1, 2, 3, 32, 32), "aspect_ratio_ids": torch.tensor([[1]]), "attention_mask": torch.ones(1, 9, dtype=torch.long)}
    given |= {"aspect_ratio_mask": torch.tensor([[[1, 0]]]), "cross_attention_mask": torch.ones(1, 9, 1, 2, dtype=torch.long)}
    given["cross_attention_mask"][..., 1] = 0
    return built("MllamaForConditionalGeneration", config), given


def internvl() -> tuple[Any, dict[str, Any]]:
    vision = VISION | {"image_size": [32, 32], "patch_size": [8, 8]}
    config = transformers.InternVLConfig(text_config=text_config("Qwen2Config"), vision_config=vision, image_token_id=IMAGE, downsample_ratio=0.5)
    text = around(4, 2)
    return built("InternVLForConditionalGeneration", config), {"input_ids": text, "pixel_values": pixels(2, 3, 32, 32), "attention_mask": torch.ones_like(text)}


def blip2() -> tuple[Any, dict[str, Any]]:
    former = TEXT | {"encoder_hidden_size": 64}
    config = transformers.Blip2Config(
        vision_config=VISION, qformer_config=former, text_config=transformers.OPTConfig(vocab_size=99, hidden_size=64, num_hidden_layers=2, ffn_dim=96, num_attention_heads=4, word_embed_proj_dim=64, max_position_embeddings=64, dropout=0.0),
        num_query_tokens=6, image_token_index=IMAGE, image_token_id=IMAGE,
    )  # fmt: skip
    text = around(6, 2)
    return built("Blip2ForConditionalGeneration", config), {"input_ids": text, "pixel_values": pixels(2, 3, 32, 32), "attention_mask": torch.ones_like(text)}


def pixtral() -> tuple[Any, dict[str, Any]]:
    vision = transformers.PixtralVisionConfig(**VISION | {"head_dim": 16})
    config = transformers.LlavaConfig(vision_config=vision, text_config=text_config("MistralConfig"), image_token_index=IMAGE, image_token_id=IMAGE, vision_feature_select_strategy="full", vision_feature_layer=-1)
    text = torch.cat([around(16), around(16)], 1)
    given = {"input_ids": text, "pixel_values": pixels(2, 3, 32, 32), "image_sizes": torch.tensor([[32, 32], [32, 32]])}
    return built("LlavaForConditionalGeneration", config), given | {"attention_mask": torch.ones_like(text)}


def speech_rows() -> Iterator[Row]:
    """Sound."""

    def encoder(name: str, config: str, attention: str = "sdpa", **more: Any) -> Row:
        def make() -> tuple[Any, dict[str, Any]]:
            mask = torch.ones(2, 1600, dtype=torch.long)
            mask[1, 1000:] = 0
            return built(name, getattr(transformers, config)(**SPEECH | more), attention), {"input_values": pixels(2, 1600), "attention_mask": mask}

        return Row("speech", name, make, pads=lambda given: feature_pads(given))

    yield encoder("Wav2Vec2Model", "Wav2Vec2Config")
    yield encoder("HubertModel", "HubertConfig")
    yield encoder("UniSpeechModel", "UniSpeechConfig")
    yield encoder("WavLMModel", "WavLMConfig", attention="eager")

    def whisper() -> tuple[Any, dict[str, Any]]:
        config = transformers.WhisperConfig(**BOTH | {"num_mel_bins": 8, "max_source_positions": 30, "max_target_positions": 40, "pad_token_id": 0, "suppress_tokens": None, "begin_suppress_tokens": None})
        return built("WhisperForConditionalGeneration", config), {"input_features": pixels(2, 8, 60)}

    def forward(model: Any, given: dict[str, Any]) -> Any:
        return model(**given, decoder_input_ids=tokens(2, 9))

    yield Row("speech", "Whisper", whisper, forward)
    yield generated(Row("speech", "Whisper", whisper))

    def moonshine() -> tuple[Any, dict[str, Any]]:
        sizes = {"hidden_size": 64, "intermediate_size": 96, "encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 2} | {
            "encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4, "encoder_num_key_value_heads": 4,
            "decoder_num_key_value_heads": 4, "vocab_size": 99, "max_position_embeddings": 64, "pad_token_id": 0,
        }  # fmt: skip
        return built("MoonshineForConditionalGeneration", transformers.MoonshineConfig(**sizes)), {"input_values": pixels(2, 6000)}

    yield Row("speech", "Moonshine", moonshine, forward)
    yield generated(Row("speech", "Moonshine", moonshine))

    def s2t() -> tuple[Any, dict[str, Any]]:
        config = transformers.Speech2TextConfig(**BOTH | {"input_feat_per_channel": 8, "max_source_positions": 64, "max_target_positions": 64, "conv_channels": 32})
        mask = torch.ones(2, 60, dtype=torch.long)
        mask[1, 40:] = 0
        return built("Speech2TextForConditionalGeneration", config, "eager"), {"input_features": pixels(2, 60, 8), "attention_mask": mask}

    short = lambda given: {"encoder": shortened(given, 15), "cross": shortened(given, 15)}  # noqa: E731
    yield Row("speech", "Speech2Text", s2t, forward, pads=short)
    row = generated(Row("speech", "Speech2Text", s2t))
    row.pads = short
    yield row


def shortened(given: dict[str, Any], length: int) -> torch.Tensor:
    """A mask of sound for the frames that are made of it."""
    counts = given["attention_mask"].sum(1)
    for _ in range(2):
        counts = (counts - 1) // 2 + 1
    return torch.arange(length) < counts[:, None]


def feature_pads(given: dict[str, Any]) -> dict[str, Any]:
    """The same for wav2vec2's convolutions."""
    sizes = given["attention_mask"].sum(1)
    for kernel, stride in ((10, 5), (3, 2)):
        sizes = (sizes - kernel) // stride + 1
    return {"": torch.arange(int(sizes.max())) < sizes[:, None]}
