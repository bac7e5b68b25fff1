"""Readings of a transformers model in a folder: language models, encoders and decoders, vision transformers.

Responsible for loading a model from local files, running it over a text or a picture, and errors that name the folder.
`clearhead.watch` records the attention.
"""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clearhead.errors import FileError, InputError
from clearhead.reading.readings import Reading
from clearhead.reading.sources import from_watch, shortened
from clearhead.watched.records import MemoryLimitError, in_bytes
from clearhead.watching import watch

WATCH_BYTES = 1 << 31  # what a watch may record at least; more where a quarter of the free memory is more
GENERATING = ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM")
MOST_PICTURE_PIXELS = 640  # height and width of the picture that is shown


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model, what makes its inputs, and how it is run."""

    folder: Path
    model: Any
    processor: Any  # a tokenizer or an image processor
    kinds: tuple[str, str]  # the classes of transformers that load the two

    @property
    def generates(self) -> bool:
        """Whether it can go on with a text."""
        return self.kinds[0] in GENERATING

    def read(self, text: str, tokens: int) -> Reading:
        """The attention over a text, and over `tokens` tokens that the model adds."""
        inputs = self.processor(text, return_tensors="pt")
        if self.generates:
            inputs.pop("token_type_ids", None)
        if not inputs["input_ids"].shape[1]:
            raise InputError("This text has no tokens: give another.")
        if tokens and not self.generates:
            raise InputError(f"{self.folder} cannot go on with a text: leave out --generate.")
        if tokens:
            run = lambda: self.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)  # noqa: E731
        else:
            run = lambda: self.model(**inputs)  # noqa: E731
        given = inputs["input_ids"].shape[1]
        [reading] = self.watched(run, f"{given:,} tokens")
        setup = self.setup(f"inputs = processor({text!r}, return_tensors='pt')", run_code(tokens, self.generates))
        code = replace(reading.code, setup=setup)
        most, notes = self.most_tokens, reading.notes
        if most and given > most:
            notes = (*notes, f"{self.folder.name} was made for {most:,} tokens, and this text has {given:,}.")
        return replace(
            reading, title=shortened(text), code=code, notes=notes, again=lambda text: self.read(text, tokens)
        )

    @property
    def most_tokens(self) -> int | None:
        """How many tokens the model was made for, if its configuration says so."""
        config = getattr(self.model.config, "text_config", self.model.config)
        found = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        return found if isinstance(found, int) and found > 0 else None

    def look(self, picture: Path) -> Reading:
        """The attention over a picture."""
        image = read_picture(picture)
        inputs = self.processor(images=image, return_tensors="pt")
        reading = self.watched(lambda: self.model(**inputs), "this picture")[0]
        pixels = f"PIL.Image.open({str(picture)!r}).convert('RGB')"
        setup = self.setup(f"inputs = processor(images={pixels}, return_tensors='pt')", "model(**inputs)")
        code = replace(reading.code, setup=("import PIL.Image", *setup))
        shown = png_of(seen_picture(inputs["pixel_values"][0].numpy(), self.processor))
        return replace(reading, title=picture.name, code=code, picture=shown)

    def watched(self, run: Callable[[], Any], what: str) -> list[Reading]:
        """Run the model once under a watch."""
        import torch

        memory = watch_memory()
        tokenizer = self.processor if callable(getattr(self.processor, "decode", None)) else None
        try:
            with torch.no_grad(), watch(self.model, memory=memory, tokenizer=tokenizer) as seen:
                run()
        except MemoryLimitError as error:
            raise InputError(
                f"{self.folder} over {what} would keep {in_bytes(error.needed)}, but {in_bytes(memory)} is the "
                "most: give a shorter text, or in Python save a few layers with clearhead.watch(model, layers=[0]) and "
                "look at those."
            ) from None
        except (RuntimeError, IndexError, ValueError) as error:
            if isinstance(error, InputError):
                raise self.refused(error) from None
            most = f"; it was made for {self.most_tokens:,} tokens" if self.most_tokens else ""
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise InputError(
                f"{self.folder} failed over {what} ({reason}{most}): give a shorter text, or another model."
            ) from error
        return from_watch(seen, name=self.folder.name)

    def refused(self, error: InputError) -> InputError:
        """The error for a model that cannot be watched."""
        return InputError(
            f"{self.folder} cannot be inspected: {str(error).partition(': ')[0]}. Give a language model such as Llama, "
            "Qwen, Mistral, Gemma, GPT-2 or BERT."
        )

    def setup(self, inputs: str, run: str) -> tuple[str, ...]:
        """Lines of Python that make the same watch."""
        options = "".join(f", {name}={value!r}" for name, value in options_of(self.folder).items())
        folder = f"{str(self.folder)!r}{options}"
        return (
            "import clearhead, torch, transformers",
            f"model = transformers.{self.kinds[0]}.from_pretrained({folder}, dtype=torch.float32).eval()",
            f"processor = transformers.{self.kinds[1]}.from_pretrained({folder})",
            inputs,
            "with torch.no_grad(), clearhead.watch(model) as seen:",
            f"    {run}",
        )


def watch_memory() -> int:
    """How many bytes a watch may record: putting a sequence together takes as many again."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # another system
        free = 0
    return max(WATCH_BYTES, free // 4)


def run_code(tokens: int, generates: bool) -> str:
    """The line of Python that runs a model."""
    return (
        f"model.generate(**inputs, max_new_tokens={tokens}, do_sample=False)"
        if tokens and generates
        else "model(**inputs)"
    )


def from_folder(folder: Path, text: str, tokens: int = 0) -> Reading:
    """A forward pass of a model over a text, and `tokens` generated ones. Raises FileError or InputError."""
    loaded = load_model(folder, pictures=False)
    return loaded.read(text, tokens or (16 if loaded.model.config.is_encoder_decoder else 0))


def from_picture(folder: Path, picture: Path) -> Reading:
    """A forward pass of a vision transformer over a picture. Raises FileError or InputError."""
    return load_model(folder, pictures=True).look(picture)


def load_model(folder: Path, *, pictures: bool) -> Loaded:
    """Load a model and its tokenizer or image processor from local files. Raises FileError or InputError."""
    try:
        import torch
        import transformers
    except ImportError:
        raise InputError(f"{folder} is a model, which needs PyTorch: pip install 'clearhead[transformers]'.") from None
    options = options_of(folder)
    made = "AutoImageProcessor" if pictures else "AutoTokenizer"
    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **options)
        kind = kind_of(config, pictures)
        processor = load_processor(folder, made, options)
        model = getattr(transformers, kind).from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, **options
        )
    except InputError:
        raise
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileError(f"transformers cannot load a model from {folder}: {reason}") from None
    return Loaded(folder, model.eval(), processor, (kind, made))


def load_processor(folder: Path, made: str, options: dict[str, str]) -> Any:
    """What makes a model's inputs. Raises InputError for a folder without it, as a vision transformer's is for text."""
    import transformers

    try:
        return getattr(transformers, made).from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(":")
        what, step = (
            ("image processor, so it takes no pictures", "give a text in place of --image")
            if made == "AutoImageProcessor"
            else ("tokenizer that transformers can load, so it reads no text", "give --image to a vision transformer")
        )
        raise InputError(f"{folder} has no {what} ({reason[:160]}): {step}.") from error


def options_of(folder: Path) -> dict[str, str]:
    """What transformers must be told about a folder: the name of its GGUF file."""
    files = [path.name for path in sorted(folder.glob("*.gguf"))]
    return {"gguf_file": files[0]} if files and not (folder / "config.json").exists() else {}


def kind_of(config: Any, pictures: bool) -> str:
    """The class of transformers that loads a model by its configuration."""
    import transformers

    if pictures:
        return "AutoModel"
    if config.is_encoder_decoder:
        return "AutoModelForSeq2SeqLM"
    known = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING
    written = any("CausalLM" in name or "LMHead" in name for name in config.architectures or ())
    bidirectional = not written and any("MaskedLM" in name or "Model" in name for name in config.architectures or ())
    return "AutoModelForCausalLM" if type(config) in known and not bidirectional else "AutoModel"


def read_picture(path: Path) -> Any:
    """A picture file as PIL's image in RGB. Raises FileError or InputError."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise InputError(f"{path} is a picture, which needs Pillow: pip install pillow.") from None
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "it is not a picture that Pillow knows"
        raise FileError(f"{path} cannot be read ({reason}): give a PNG or JPEG file.") from None


def seen_picture(pixels: Any, processor: Any) -> Any:
    """The picture as the model saw it, after cropping and resizing: pixels (3, height, width) with the norm undone."""
    from PIL import Image

    mean, deviation = (
        np.asarray(getattr(processor, name, None) or default, np.float32).reshape(-1, 1, 1)
        for name, default in (("image_mean", 0.0), ("image_std", 1.0))
    )
    raw = np.clip((pixels * deviation + mean) * 255, 0, 255).round().astype(np.uint8)
    return Image.fromarray(raw.transpose(1, 2, 0))


def png_of(image: Any) -> bytes:
    """A picture as a small PNG."""
    image.thumbnail((MOST_PICTURE_PIXELS, MOST_PICTURE_PIXELS))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
