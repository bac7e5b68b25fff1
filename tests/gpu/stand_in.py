"""A stand-in for NVIDIA's driver: its memory is this process's, and a launch runs the very PTX on this processor."""

import ctypes
import functools
import re
from typing import Any

import numpy as np

from clearhead.gpu.tile import THREADS
from tests.gpu.emulation import Emulated
from tests.gpu.translation import Translation

H100 = {75: 9, 76: 0, 97: 232448, 81: 233472, 16: 132, 13: 1980000}

C_KINDS: dict[str, Any] = {"ptr": ctypes.c_void_p, "i32": ctypes.c_int, "i64": ctypes.c_int64, "float": ctypes.c_float}

NULL, FREED = 1, 201  # statuses: of a value that cannot be, and of a context that is none
UNLISTED = 500


@functools.cache
def emulated(text: str, shared_bytes: int, late: bool) -> tuple[Emulated, list[Any]]:
    """A PTX's code for this processor, translated once, and the C types of its parameters."""
    translation = Translation(text)
    kinds = [C_KINDS[kind] for _, kind in translation.parameters]
    return Emulated(translation.ir, translation.name, kinds, THREADS, shared_bytes, late=late), kinds


class StandIn:
    """The library's functions that `clearhead.gpu.driver` calls, and no others.

    `refuse` gives statuses to functions; `spoil` changes a PTX before it is run, by threads in some `order`, with
    copies that are there at once or `late`. What is not said to be on a card by `put` is on card 0.
    """

    order, late = "ascending", False

    def __init__(
        self, *, cards: int = 1, version: int = 13000, refuse: Any = (), spoil: Any = None, **attributes: int
    ) -> None:
        self.cards, self.version, self.refuse, self.spoil = cards, version, dict(refuse), spoil
        self.attributes = H100 | {int(name[1:]): value for name, value in attributes.items()}
        self.functions: dict[int, Any] = {}
        self.texts: dict[int, str] = {}
        self.homes: dict[int, int] = {}  # the contexts of modules
        self.memory: dict[int, tuple[Any, int]] = {}  # what is allocated, and its card
        self.put_on: list[tuple[range, int]] = []
        self.launches: list[tuple[int, int, int | None]] = []  # groups, shared bytes, stream
        self.called: list[tuple[Any, ...]] = []  # what concerns streams
        self.capturing: set[int] = set()  # streams
        self.stack: list[int] = []  # contexts pushed and not popped: a card's is its number + 1

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)
        method = getattr(type(self), re.sub(r"(?<!^)(?=[A-Z])", "_", name.removeprefix("cu")).lower(), None)

        def call(*arguments: Any) -> int:
            if name in self.refuse:
                return int(self.refuse[name])
            return UNLISTED if method is None else method(self, *arguments) or 0

        return call

    def put(self, array: Any, card: int) -> Any:
        """Let an array be in a card's memory."""
        self.put_on.append((range(array.ctypes.data, array.ctypes.data + array.nbytes), card))
        return array

    def card_at(self, address: int) -> int:
        """The card in whose memory an address is."""
        for place, (block, card) in self.memory.items():
            if place <= address < place + block.nbytes:
                return card
        return next((card for places, card in self.put_on if address in places), 0)

    @property
    def contexts(self) -> int:
        """How many contexts are pushed."""
        return len(self.stack)

    @property
    def current(self) -> int:
        """The card whose context is current."""
        return self.stack[-1] - 1

    def init(self, flags):
        assert flags.value == 0

    def get_error_string(self, status, out):
        out._obj.value = b"as the test wants"

    def driver_get_version(self, out):
        out._obj.value = self.version

    def device_get_count(self, out):
        out._obj.value = self.cards

    def device_get(self, out, index):
        out._obj.value = index.value

    def device_get_name(self, text, size, handle):
        text.value = b"Stand-in"

    def device_get_attribute(self, out, which, handle):
        out._obj.value = self.attributes[which.value]

    def device_primary_ctx_retain(self, out, handle):
        out._obj.value = handle.value + 1

    def pointer_get_attribute(self, out, which, address):
        assert which.value == 9
        if address.value:
            out._obj.value = self.card_at(address.value)
        return 0 if address.value else NULL

    def ctx_push_current_v2(self, context):
        if context.value:
            self.stack.append(context.value)
        return 0 if context.value else FREED

    def ctx_pop_current_v2(self, out):
        self.stack.pop()

    def stream_is_capturing(self, stream, out):
        assert self.stack
        out._obj.value = (stream.value or 0) in self.capturing

    def stream_synchronize(self, stream):
        self.called.append(("finish", stream.value))

    def stream_wait_event(self, stream, event, flags):
        self.called.append(("wait", stream.value, event.value))

    def event_create(self, out, flags):
        assert self.stack
        out._obj.value = len(self.called) + 1

    def event_record(self, event, stream):
        self.called.append(("record", stream.value, event.value))

    def event_destroy_v2(self, event):
        self.called.append(("destroy", event.value))

    def module_load_data_ex(self, out, text, *options):
        ptx = text.value.decode()
        number = max(self.texts, default=0) + 1
        self.texts[number] = self.spoil(ptx) if self.spoil else ptx
        self.homes[number] = self.current
        out._obj.value = number

    def module_unload(self, module):
        assert self.current == self.homes[module.value]
        del self.texts[module.value]

    def module_get_function(self, out, module, name):
        assert f".entry {name.value.decode()}(" in self.texts[module.value]
        out._obj.value = module.value

    def func_set_attribute(self, function, which, value):
        assert which.value == 8
        self.functions[function.value] = *emulated(self.texts[function.value], value.value, self.late), value.value

    def mem_alloc_v2(self, out, size):
        block = np.full(size.value + 64, 255, np.uint8)
        place = block.ctypes.data + -block.ctypes.data % 64
        self.memory[place] = block, self.current
        out._obj.value = place

    def mem_free_v2(self, address):
        _, card = self.memory.pop(address.value)
        assert card == self.current

    def memcpy_hto_d_v2(self, target, source, size):
        assert size.value
        assert self.card_at(target.value) == self.current
        ctypes.memmove(target.value, source.value, size.value)

    def memcpy_dto_h_v2(self, target, source, size):
        assert self.card_at(source.value) == self.current
        ctypes.memmove(target.value, source.value, size.value)

    def launch_kernel(self, function, gx, gy, gz, tx, ty, tz, shared, stream, places, extra):
        emulated, kinds, allowed = self.functions[function.value]
        assert self.homes[function.value] == self.current
        assert shared.value <= allowed
        assert (gy.value, gz.value, tx.value, ty.value, tz.value) == (1, 1, THREADS, 1, 1)
        self.launches.append((gx.value, shared.value, stream.value))
        self.called.append(("launch", stream.value))
        numbers: list[Any] = [kind.from_address(place) for kind, place in zip(kinds, places, strict=True)]
        addresses = [x.value for kind, x in zip(kinds, numbers, strict=True) if kind is ctypes.c_void_p and x.value]
        assert {self.card_at(address) for address in addresses} == {self.current}
        emulated.launch(gx.value, [number.value for number in numbers], self.order)
