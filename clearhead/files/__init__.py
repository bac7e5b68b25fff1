"""Arrays in .npy, .npz and .safetensors files, memory-mapped: never loaded whole, never half written."""

from clearhead.files.reading import ArrayFile, open_arrays, release
from clearhead.files.writing import Spec, new_file

__all__ = ["ArrayFile", "Spec", "new_file", "open_arrays", "release"]
