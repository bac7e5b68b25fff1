"""Arrays in .npy, .npz and .safetensors files, memory-mapped to read, and written atomically, at once or in stages."""

from clearhead.files.reading import ArrayFile, open_arrays, release
from clearhead.files.resuming import resumable_file
from clearhead.files.writing import Spec, new_file

__all__ = ["ArrayFile", "Spec", "new_file", "open_arrays", "release", "resumable_file"]
