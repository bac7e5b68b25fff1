"""A stand-in for NVIDIA's driver: its memory is this process's, and a launch runs the very PTX on this processor."""

import ctypes
import re
from typing import Any

import numpy as np

from clearhead.gpu.launch import ARGUMENTS
from clearhead.gpu.tile import THREADS
from tests.gpu.emulation import Emulated
from tests.gpu.translation import Translation

H100 = {75: 9, 76: 0, 97: 232448, 81: 233472, 16: 132, 13: 1980000}


class StandIn:
    """The library's functions that `clearhead.gpu.driver` calls; those without a method here do nothing and succeed.

    `refuse` gives statuses to functions; `spoil` changes a PTX before it is run.
    """

    def __init__(
        self, *, cards: int = 1, version: int = 13000, refuse: Any = (), spoil: Any = None, **attributes: int
    ) -> None:
        self.cards, self.version, self.refuse, self.spoil = cards, version, dict(refuse), spoil
        self.attributes = H100 | {int(name[1:]): value for name, value in attributes.items()}
        self.functions: dict[int, Any] = {}
        self.texts: dict[int, str] = {}
        self.memory: dict[int, Any] = {}
        self.launches: list[tuple[int, int, int | None]] = []  # groups, shared bytes, stream
        self.contexts = 0  # pushed and not popped

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)
        method = vars(StandIn).get(re.sub(r"(?<!^)(?=[A-Z])", "_", name.removeprefix("cu")).lower())

        def call(*arguments: Any) -> int:
            if name in self.refuse:
                return int(self.refuse[name])
            if method is not None:
                method(self, *arguments)
            return 0

        return call

    def get_error_string(self, status, out):
        out._obj.value = b"as the test wants"

    def driver_get_version(self, out):
        out._obj.value = self.version

    def device_get_count(self, out):
        out._obj.value = self.cards

    def device_get_name(self, text, size, handle):
        text.value = b"Stand-in"

    def device_get_attribute(self, out, which, handle):
        out._obj.value = self.attributes[which.value]

    def device_primary_ctx_retain(self, out, handle):
        out._obj.value = 1

    def pointer_get_attribute(self, out, which, address):
        out._obj.value = 0

    def ctx_push_current_v2(self, context):
        self.contexts += 1

    def ctx_pop_current_v2(self, out):
        self.contexts -= 1

    def module_load_data_ex(self, out, text, *options):
        assert self.contexts
        ptx = text.value.decode()
        self.texts[len(self.texts) + 1] = self.spoil(ptx) if self.spoil else ptx
        out._obj.value = len(self.texts)

    def module_get_function(self, out, module, name):
        assert f".entry {name.value.decode()}(" in self.texts[module.value]
        out._obj.value = module.value

    def func_set_attribute(self, function, which, value):
        assert which.value == 8
        translation = Translation(self.texts[function.value])
        self.functions[function.value] = (
            Emulated(translation.ir, translation.name, ARGUMENTS, THREADS, value.value),
            value.value,
        )

    def mem_alloc_v2(self, out, size):
        block = np.full(size.value + 64, 255, np.uint8)
        place = block.ctypes.data + -block.ctypes.data % 64
        self.memory[place] = block
        out._obj.value = place

    def mem_free_v2(self, address):
        del self.memory[address.value]

    def memcpy_hto_d_v2(self, target, source, size):
        ctypes.memmove(target.value, source.value, size.value)

    def memcpy_dto_h_v2(self, target, source, size):
        ctypes.memmove(target.value, source.value, size.value)

    def event_elapsed_time(self, out, start, stop):
        out._obj.value = 1.0

    def launch_kernel(self, function, gx, gy, gz, tx, ty, tz, shared, stream, places, extra):
        emulated, allowed = self.functions[function.value]
        assert self.contexts
        assert shared.value <= allowed
        assert (gy.value, gz.value, tx.value, ty.value, tz.value) == (1, 1, THREADS, 1, 1)
        self.launches.append((gx.value, shared.value, stream.value))
        numbers: list[Any] = [kind.from_address(place) for kind, place in zip(ARGUMENTS, places, strict=True)]
        emulated.launch(gx.value, [number.value for number in numbers])
