"""What instructions do, in some words: by the beginnings of their names, the longest that fits."""

import re

ARITHMETIC = {
    "LLVM IR": {
        "multiply, add, round once": "call", "multiply": "fmul", "add": "fadd", "subtract": "fsub",
        "read memory": "load", "write memory": "store", "an address": "getelementptr",
        "a value carried round the loop": "phi", "compare": "icmp fcmp", "choose lane by lane": "select",
        "jump": "br", "into lane 0": "insertelement", "into every lane": "shufflevector", "move bits": "shl",
        "the same bits": "bitcast", "count": "add sub mul sdiv srem trunc",
    },
    "x86": {
        "multiply, add, round once": "vfmadd", "multiply, subtract, round once": "vfnmadd vfmsub", "add": "vadd",
        "subtract": "vsub", "multiply": "vmul", "the larger": "vmax", "one number into every lane": "vbroadcastss",
        "into every lane": "vpbroadcast", "copy": "vmov mov kmov", "move bits": "vpslld shl sar shr",
        "compare": "vcmp vpcmp cmp test", "choose lane by lane": "vblend", "keep some bits": "vand and",
        "turn bits": "vxor vpxor xor vpternlog knot", "join bits": "vor vpor or", "an address": "lea", "jump": "j",
        "count": "add sub inc dec imul neg vpsubd vpaddd",
    },
    "AArch64": {
        "multiply, add, round once": "fmla", "multiply, subtract, round once": "fmls", "multiply": "fmul",
        "add": "fadd", "subtract": "fsub", "one number into every lane": "ld1r", "into every lane": "dup",
        "read memory": "ldr ldp ldur", "write memory": "str stp stur", "move bits": "shl lsl asr", "a constant": "movi",
        "compare": "fcm cm ccmp", "choose lane by lane": "bsl bit bif", "keep some bits": "bic and", "copy": "mov fmov",
        "an address": "adrp", "turn bits": "mvn", "join bits": "orr bfi", "jump": "b cbz cbnz tbz tbnz",
        "count": "add sub madd csel cinc cneg sbfiz ubfiz",
    },
}  # fmt: skip
WORDS = {
    language: {name: words for words, names in table.items() for name in names.split()}
    for language, table in ARITHMETIC.items()
}


def meaning_of(instruction: str, language: str) -> str:
    """What an instruction does; nothing for one that is not in the tables.

    >>> meaning_of("vfmadd231ps   (%r12), %zmm4, %zmm3", "AVX-512")
    'multiply, add, round once'
    """
    name = re.sub(r"^%\S+ = ", "", instruction).split()[0]
    operands = re.findall(r"%\w+", instruction)
    if language.startswith("AVX"):
        if name.startswith("vmov") and "(" in instruction:
            return "write memory" if instruction.rstrip().endswith((")", "}")) else "read memory"
        if "xor" in name and len(operands) > 1 and len(set(operands)) == 1:
            return "0"
        language = "x86"
    known = [beginning for beginning in WORDS[language] if name.startswith(beginning)]
    return WORDS[language][max(known, key=len)] if known else ""
