"""PTX as the host's code: each PTX instruction becomes the LLVM instructions that NVIDIA's manual says it is.

So the very text that a GPU's driver gets is run by tests. What is not in these tables is an error: they are also the
list of what a kernel may contain.
"""

import re
from collections.abc import Callable

FLOAT = {
    "fma.rn": "call {t} @llvm.fma.{f}({t} {0}, {t} {1}, {t} {2})",
    "mul.rn": "fmul {t} {0}, {1}",
    "add.rn": "fadd {t} {0}, {1}",
    "sub.rn": "fsub {t} {0}, {1}",
    "div.rn": "fdiv {t} {0}, {1}",
    "rcp.rn": "fdiv {t} 1.0, {0}",
    "sqrt.rn": "call {t} @llvm.sqrt.{f}({t} {0})",
    "max": "call {t} @llvm.maxnum.{f}({t} {0}, {t} {1})",
    "abs": "call {t} @llvm.fabs.{f}({t} {0})",
    "neg": "fneg {t} {0}",
    "copysign": "call {t} @llvm.copysign.{f}({t} {1}, {t} {0})",  # the sign comes first
}
FLOAT |= {  # without .rn, PTX's compiler may contract a product and a sum: no kernel has these, but a test
    "mul": "fmul contract {t} {0}, {1}",
    "add": "fadd contract {t} {0}, {1}",
    "sub": "fsub contract {t} {0}, {1}",
}
INTEGER = {
    "add": "add", "sub": "sub", "mul.lo": "mul", "and": "and", "or": "or", "xor": "xor", "shl": "shl",
    "shr.u": "lshr", "shr.b": "lshr", "shr.s": "ashr", "div.u": "udiv", "div.s": "sdiv",
    "rem.u": "urem", "rem.s": "srem",
}  # fmt: skip
COMPARE = {"eq": "eq", "ne": "ne", "lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge"}
FLOAT_COMPARE = {
    "eq": "oeq", "ne": "one", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "nan": "uno",
    "neu": "une", "ltu": "ult", "leu": "ule", "gtu": "ugt", "geu": "uge",
}  # fmt: skip
FLOATS = {"f32": ("float", "i32"), "f64": ("double", "i64")}  # types, and integers as wide, which registers are
INTEGER_OF = dict(FLOATS.values())
CONVERSIONS = {  # PTX's name, the type of what is read, the instruction, and the type of what is written
    "rn.f32.s32": ("i32", "sitofp", "float"),
    "rn.f32.s64": ("i64", "sitofp", "float"),
    "rn.f32.f64": ("double", "fptrunc", "float"),
    "f64.f32": ("float", "fpext", "double"),
}
REGISTERS = {
    "%p": "i1",
    "%rs": "i16",
    "%r": "i32",
    "%rd": "i64",
    "%f": "i32",
    "%fd": "i64",
    "%SP": "i64",
    "%SPL": "i64",
}
PARAMETERS = {"u64": "i64", "u32": "i32", "f32": "float", "s64": "i64", "b64": "i64", "b32": "i32"}
SURROUNDINGS = "i32 %tid.x, i32 %ctaid.x, ptr %shared_memory"
DECLARATIONS = """
declare i32 @host_vote(i32)
declare void @host_barrier()
declare void @host_copy(ptr, ptr)
declare void @host_arrived()
declare i32 @llvm.fshl.i32(i32, i32, i32)
declare i32 @llvm.fptosi.sat.i32.f32(float)
declare i64 @llvm.fptosi.sat.i64.f32(float)
""" + "".join(
    f"declare {kind} @llvm.{name}.{short}({', '.join([kind] * count)})\n"
    for short, (kind, _) in FLOATS.items()
    for name, count in (("fma", 3), ("sqrt", 1), ("maxnum", 2), ("fabs", 1), ("copysign", 2))
)


class Translation:
    """The IR of the one kernel in a PTX text, as a function of its parameters and of `SURROUNDINGS`."""

    def __init__(self, ptx: str) -> None:
        self.lines: list[str] = []
        self.registers: set[str] = set()
        self.count = 0
        found = re.search(r"\.visible \.entry (\w+)\(", ptx)
        assert found
        self.name = found[1]
        head = ptx[: ptx.index("{", found.start())]
        self.parameters = [
            (name, "ptr" if pointer else PARAMETERS[kind])
            for kind, pointer, name in re.findall(r"\.param \.(\w+)( \.ptr(?: \.\w+)* \.align \d+)? (\w+)", head)
        ]
        body = re.sub(r"//.*", "", ptx[ptx.index("{", found.start()) + 1 : ptx.rindex("}")])
        self.depots = dict(re.findall(r"\.local \.align \d+ \.b8\s+(\w+)\[(\d+)\]", body))
        for line in map(str.strip, body.splitlines()):
            if line.endswith(":"):
                self.label(line[:-1])
            elif line and not line.startswith("."):
                self.instruction(line.rstrip(";"))

    @property
    def ir(self) -> str:
        """The module."""
        arguments = ", ".join([f"{kind} %{name}" for name, kind in self.parameters] + [SURROUNDINGS])
        memory = [f"  %{name} = alloca [{size} x i8], align 16" for name, size in self.depots.items()]
        memory += [f"  {variable(r)} = alloca {register_kind(r)}" for r in sorted(self.registers)]
        lines = [f"define void @{self.name}({arguments}) {{", "entry:", *memory, *self.lines, "  ret void", "}"]
        return "\n".join(lines) + DECLARATIONS

    # Lines of IR

    def emit(self, text: str) -> None:
        """An instruction without a result."""
        self.lines.append(f"  {text}")

    def new(self, text: str) -> str:
        """An instruction's result."""
        self.count += 1
        self.emit(f"%t{self.count} = {text}")
        return f"%t{self.count}"

    def label(self, name: str) -> None:
        """The beginning of a basic block."""
        self.emit(f"br label %{name.strip('$')}")
        self.lines.append(f"{name.strip('$')}:")

    def unreachable(self) -> None:
        """A block behind a jump, which LLVM's syntax wants."""
        self.count += 1
        self.lines.append(f"dead{self.count}:")

    # Operands

    def read(self, operand: str, kind: str) -> str:
        """An operand's value, of a type of integers or as float."""
        if operand.startswith(("0f", "0d")):
            bits = int(operand[2:], 16)
            return self.new(f"bitcast {INTEGER_OF[kind]} {bits} to {kind}") if kind in INTEGER_OF else str(bits)
        if operand in ("%tid.x", "%ctaid.x"):
            return operand
        if operand == "shared_memory" or operand in self.depots:
            return self.new(f"ptrtoint ptr %{operand} to i64")
        if operand.startswith("%"):
            self.registers.add(operand)
            own = register_kind(operand)
            value = self.new(f"load {own}, ptr {variable(operand)}")
            return self.new(f"bitcast {own} {value} to {kind}") if kind in INTEGER_OF else value
        return operand

    def write(self, register: str, value: str, kind: str = "") -> None:
        """Set a register."""
        if register == "_":
            return
        self.registers.add(register)
        if kind in INTEGER_OF:
            value = self.new(f"bitcast {kind} {value} to {INTEGER_OF[kind]}")
        self.emit(f"store {register_kind(register)} {value}, ptr {variable(register)}")

    def address(self, text: str) -> str:
        """The pointer of an operand [base+offset]."""
        base, _, offset = text.strip("[]").partition("+")
        value = self.read(base, "i64")
        if offset:
            value = self.new(f"add i64 {value}, {offset}")
        return self.new(f"inttoptr i64 {value} to ptr")

    # Instructions

    def instruction(self, line: str) -> None:
        """One instruction, perhaps behind a predicate."""
        guard = re.match(r"@(!?)(%p\d+)\s+bra\s+(?:\.uni\s+)?\$?(\w+)", line)
        if guard:
            self.count += 1
            stay = f"next{self.count}"
            targets = (stay, guard[3]) if guard[1] else (guard[3], stay)
            self.emit(f"br i1 {self.read(guard[2], 'i1')}, label %{targets[0]}, label %{targets[1]}")
            self.lines.append(f"{stay}:")
            return
        op, _, rest = line.partition(" ") if " " in line else line.partition("\t")
        operands = [x.strip() for x in re.split(r",\s*(?![^{]*\})", rest.strip())]
        for pattern, translate in INSTRUCTIONS:
            match = re.fullmatch(pattern, op.strip())
            if match:
                translate(self, match, operands)
                return
        raise NotImplementedError(line)

    def float_operation(self, op: re.Match[str], x: list[str]) -> None:
        """One of FLOAT."""
        kind, short = FLOATS[op[2]][0], op[2]
        values = [self.read(operand, kind) for operand in x[1:]]
        self.write(x[0], self.new(FLOAT[op[1]].format(*values, t=kind, f=short)), kind)

    def jump(self, _: re.Match[str], x: list[str]) -> None:
        """bra."""
        self.emit(f"br label %{x[0].strip('$')}")
        self.unreachable()

    def end(self, _: re.Match[str], __: list[str]) -> None:
        """ret."""
        self.emit("ret void")
        self.unreachable()

    def barrier(self, _: re.Match[str], __: list[str]) -> None:
        """bar.sync."""
        self.emit("call void @host_barrier()")

    def vote(self, _: re.Match[str], x: list[str]) -> None:
        """bar.red.or.pred: whether it holds in any thread, when all have come."""
        number = self.new(f"zext i1 {self.read(x[2], 'i1')} to i32")
        self.write(x[0], self.new(f"trunc i32 {self.new(f'call i32 @host_vote(i32 {number})')} to i1"))

    def arrived(self, _: re.Match[str], __: list[str]) -> None:
        """cp.async.wait_all."""
        self.emit("call void @host_arrived()")

    def copy(self, _: re.Match[str], x: list[str]) -> None:
        """cp.async of 16 bytes."""
        target, source = (self.address(operand) for operand in x[:2])
        assert x[2] == "16"
        self.emit(f"call void @host_copy(ptr {source}, ptr {target})")

    def parameter(self, op: re.Match[str], x: list[str]) -> None:
        """ld.param, perhaps of a narrow number in a wider register."""
        name = x[1].strip("[]")
        kind = dict(self.parameters)[name]
        value = self.new(f"ptrtoint ptr %{name} to i64") if kind == "ptr" else f"%{name}"
        if kind == "i32" and register_kind(x[0]) == "i64":
            word = "sext" if op["kind"] == "s" else "zext"
            kind, value = "i64", self.new(f"{word} i32 {value} to i64")
        self.write(x[0], value, kind)

    def load(self, op: re.Match[str], x: list[str]) -> None:
        """ld of one number or several; PTX wants the whole access aligned."""
        place, kind = self.address(x[1]), f"i{op['bits']}"
        registers = [r.strip() for r in x[0].strip("{}").split(",")]
        if register_kind(registers[0]) != kind:  # one narrow number in a wider register
            own, word = register_kind(registers[0]), "sext" if op["kind"] == "s" else "zext"
            number = self.new(f"load {kind}, ptr {place}, align {max(1, int(op['bits']) // 8)}")
            self.write(registers[0], self.new(f"{word} {kind} {number} to {own}"))
            return
        align = int(op["bits"]) // 8 * len(registers)
        for n, register in enumerate(registers):
            at = self.new(f"getelementptr {kind}, ptr {place}, i64 {n}")
            self.write(register, self.new(f"load {kind}, ptr {at}, align {align if n == 0 else int(op['bits']) // 8}"))

    def store(self, op: re.Match[str], x: list[str]) -> None:
        """st."""
        place, kind = self.address(x[0]), f"i{op['bits']}"
        for n, register in enumerate(r.strip() for r in x[1].strip("{}").split(",")):
            at = self.new(f"getelementptr {kind}, ptr {place}, i64 {n}")
            self.emit(f"store {kind} {self.read(register, kind)}, ptr {at}")

    def compare_floats(self, op: re.Match[str], x: list[str]) -> None:
        """setp of floats."""
        kind = FLOATS[op[2]][0]
        a, b = (self.read(operand, kind) for operand in x[1:])
        self.write(x[0], self.new(f"fcmp {FLOAT_COMPARE[op[1]]} {kind} {a}, {b}"))

    def compare(self, op: re.Match[str], x: list[str]) -> None:
        """setp of whole numbers."""
        word = COMPARE[op[1]]
        word = word.replace("s", "u", 1) if op[2] == "u" and word not in ("eq", "ne") else word
        a, b = (self.read(operand, f"i{op[3]}") for operand in x[1:])
        self.write(x[0], self.new(f"icmp {word} i{op[3]} {a}, {b}"))

    def select(self, op: re.Match[str], x: list[str]) -> None:
        """selp."""
        kind = FLOATS[f"f{op[2]}"][0] if op[1] == "f" else f"i{op[2]}"
        a, b, p = self.read(x[1], kind), self.read(x[2], kind), self.read(x[3], "i1")
        self.write(x[0], self.new(f"select i1 {p}, {kind} {a}, {kind} {b}"), kind)

    def move(self, op: re.Match[str], x: list[str]) -> None:
        """mov and cvta: addresses are the host's in every space."""
        self.write(x[0], {"true": "1", "false": "0"}.get(x[1]) or self.read(x[1], f"i{op[1]}"))

    def converted(self, op: re.Match[str], x: list[str]) -> None:
        """One of CONVERSIONS."""
        kind, word, result = CONVERSIONS[op[1]]
        self.write(x[0], self.new(f"{word} {kind} {self.read(x[1], kind)} to {result}"), result)

    def widened_half(self, _: re.Match[str], x: list[str]) -> None:
        """cvt.f32.f16."""
        half = self.new(f"bitcast i16 {self.read(x[1], 'i16')} to half")
        self.write(x[0], self.new(f"fpext half {half} to float"), "float")

    def cut(self, _: re.Match[str], x: list[str]) -> None:
        """cvt.rzi.s64.f32, or of 32 bits: what does not fit becomes the nearest that does."""
        kind = register_kind(x[0])
        name = f"llvm.fptosi.sat.{kind}.f32"
        self.write(x[0], self.new(f"call {kind} @{name}(float {self.read(x[1], 'float')})"))

    def absolute(self, op: re.Match[str], x: list[str]) -> None:
        """abs and neg of whole numbers."""
        kind = f"i{op[2]}"
        value = self.read(x[1], kind)
        negative = self.new(f"sub {kind} 0, {value}")
        if op[1] == "abs":
            below = self.new(f"icmp slt {kind} {value}, 0")
            negative = self.new(f"select i1 {below}, {kind} {negative}, {kind} {value}")
        self.write(x[0], negative)

    def funnel(self, op: re.Match[str], x: list[str]) -> None:
        """shf.l.wrap: two words moved to the left as one; their upper one."""
        low, high, by = (self.read(operand, "i32") for operand in x[1:])
        self.write(x[0], self.new(f"call i32 @llvm.fshl.i32(i32 {high}, i32 {low}, i32 {by})"))

    def resized(self, op: re.Match[str], x: list[str]) -> None:
        """cvt of whole numbers, perhaps of the lower part of a wider register."""
        word = "trunc" if int(op[1]) < int(op[3]) else "sext" if op[2] == "s" else "zext"
        narrow, own, number = f"i{op[3]}", register_kind(x[1]), self.read(x[1], f"i{op[3]}")
        if (own, narrow) == ("i64", "i32"):
            number = self.new(f"trunc {own} {number} to {narrow}")
        self.write(x[0], self.new(f"{word} {narrow} {number} to i{op[1]}"))

    def raise_to(self, _: re.Match[str], x: list[str]) -> None:
        """atom.max: the larger whole number stays, and what was there is the result."""
        place, number = self.address(x[1]), self.read(x[2], "i32")
        self.write(x[0], self.new(f"atomicrmw max ptr {place}, i32 {number} monotonic"))

    def wide_product(self, op: re.Match[str], x: list[str]) -> str:
        """mul.wide."""
        word, width = "sext" if op["sign"] == "s" else "zext", 2 * int(op["bits"])
        a, b = (
            self.new(f"{word} i{op['bits']} {self.read(operand, 'i' + op['bits'])} to i{width}") for operand in x[1:3]
        )
        return self.new(f"mul i{width} {a}, {b}")

    def multiply_wide(self, op: re.Match[str], x: list[str]) -> None:
        """mul.wide."""
        self.write(x[0], self.wide_product(op, x))

    def multiply_add_wide(self, op: re.Match[str], x: list[str]) -> None:
        """mad.wide."""
        width = 2 * int(op["bits"])
        product = self.wide_product(op, x)
        self.write(x[0], self.new(f"add i{width} {product}, {self.read(x[3], f'i{width}')}"))

    def multiply_high(self, op: re.Match[str], x: list[str]) -> None:
        """mul.hi: the upper half of the product."""
        bits = int(op["bits"])
        shift = "ashr" if op["sign"] == "s" else "lshr"
        upper = self.new(f"{shift} i{2 * bits} {self.wide_product(op, x)}, {bits}")
        self.write(x[0], self.new(f"trunc i{2 * bits} {upper} to i{bits}"))

    def multiply_add(self, op: re.Match[str], x: list[str]) -> None:
        """mad.lo."""
        kind = f"i{op[1]}"
        a, b, c = (self.read(operand, kind) for operand in x[1:])
        self.write(x[0], self.new(f"add {kind} {self.new(f'mul {kind} {a}, {b}')}, {c}"))

    def least_or_most(self, op: re.Match[str], x: list[str]) -> None:
        """min and max of whole numbers."""
        a, b = (self.read(operand, f"i{op[3]}") for operand in x[1:])
        word = op[2] + ("lt" if op[1] == "min" else "gt")
        chosen = self.new(f"icmp {word} i{op[3]} {a}, {b}")
        self.write(x[0], self.new(f"select i1 {chosen}, i{op[3]} {a}, i{op[3]} {b}"))

    def extract_bits(self, _: re.Match[str], x: list[str]) -> None:
        """bfe.u32."""
        shifted = self.new(f"lshr i32 {self.read(x[1], 'i32')}, {x[2]}")
        self.write(x[0], self.new(f"and i32 {shifted}, {(1 << int(x[3])) - 1}"))

    def negate(self, op: re.Match[str], x: list[str]) -> None:
        """not."""
        kind = "i1" if op[1] == "pred" else f"i{op[1][1:]}"
        self.write(x[0], self.new(f"xor {kind} {self.read(x[1], kind)}, -1"))

    def whole(self, op: re.Match[str], x: list[str]) -> None:
        """One of INTEGER."""
        kind = "i1" if op[2] == "pred" else f"i{op[3]}"
        word = INTEGER.get(op[1]) or INTEGER[f"{op[1]}.{op[2]}"]
        a, b = (self.read(operand, kind) for operand in x[1:])
        if op[1] in ("shl", "shr") and x[2].startswith("%") and kind == "i64":
            b = self.new(f"zext i32 {b} to i64")
        self.write(x[0], self.new(f"{word} {kind} {a}, {b}"))


def variable(register: str) -> str:
    """The host's variable of a register."""
    return f"%v_{register.removeprefix('%')}"


def register_kind(register: str) -> str:
    """The type of a register, by its name."""
    found = re.match(r"%[a-zA-Z]+", register)
    assert found
    return REGISTERS[found[0]]


PLACE = r"(?:\.(?:global|shared|local))?(?:\.v\d)?\.(?P<kind>[bfus])(?P<bits>8|16|32|64)"
WIDE = r"\.(?P<sign>[su])(?P<bits>16|32|64)"
INSTRUCTIONS: list[tuple[str, Callable[[Translation, re.Match[str], list[str]], None]]] = [
    (rf"({'|'.join(map(re.escape, FLOAT))})\.(f32|f64)", Translation.float_operation),
    (r"bra(?:\.uni)?", Translation.jump),
    (r"ret", Translation.end),
    (r"bar\.sync", Translation.barrier),
    (r"bar\.red\.or\.pred", Translation.vote),
    (r"cp\.async\.wait_all", Translation.arrived),
    (r"cp\.async\.cg\.shared\.global", Translation.copy),
    (r"ld\.param\.(?P<kind>\w)\w+", Translation.parameter),
    (f"ld{PLACE}", Translation.load),
    (f"st{PLACE}", Translation.store),
    (r"atom\.global\.max\.s32", Translation.raise_to),
    (r"setp\.(\w+)\.(f32|f64)", Translation.compare_floats),
    (r"setp\.(\w+)\.([sbu])(16|32|64)", Translation.compare),
    (r"selp\.([fbsu])(16|32|64)", Translation.select),
    (r"mov\.(?:[bsu](16|32|64)|f32|f64|pred)", Translation.move),
    (r"cvta(?:\.to)?\.(?:global|shared|local)\.u(64)", Translation.move),
    (rf"cvt\.({'|'.join(map(re.escape, CONVERSIONS))})", Translation.converted),
    (r"cvt\.f32\.f16", Translation.widened_half),
    (r"cvt\.rzi\.s(?:32|64)\.f32", Translation.cut),
    (r"(abs|neg)\.s(32|64)", Translation.absolute),
    (r"shf\.l\.wrap\.b32", Translation.funnel),
    (r"cvt\.[su](16|32|64)\.([su])(16|32|64)", Translation.resized),
    (f"mul\\.wide{WIDE}", Translation.multiply_wide),
    (f"mad\\.wide{WIDE}", Translation.multiply_add_wide),
    (f"mul\\.hi{WIDE}", Translation.multiply_high),
    (r"mad\.lo\.[su](32|64)", Translation.multiply_add),
    (r"(min|max)\.([su])(32|64)", Translation.least_or_most),
    (r"bfe\.u32", Translation.extract_bits),
    (r"not\.(b16|b32|b64|pred)", Translation.negate),
    (r"(add|sub|mul\.lo|and|or|xor|shl|shr|div|rem)\.([sub]|pred)(16|32|64)?", Translation.whole),
]  # fmt: skip
