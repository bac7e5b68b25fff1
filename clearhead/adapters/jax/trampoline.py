"""Machine code through which XLA calls Python, so that an exception is never taken for success.

XLA reads NULL as success, but a ctypes callback returns NULL if a signal handler raises before its first line. Here the
call fails, and the main thread raises the exception. Once the program is exiting, no call enters Python any more, where
its thread would wait for ever.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from clearhead.machine.compile import machine_for
from clearhead.machine.loading import llvm
from clearhead.machine.target import target

DONE = 1  # the value for success in Python
CODE = """
@handle = external global i8
@left = external global i8
@ended = external global i8
@calls = internal global i64 0

declare i32 @PyGILState_Ensure()
declare void @PyGILState_Release(i32)
declare ptr @PyLong_FromVoidPtr(ptr)
declare ptr @PyLong_AsVoidPtr(ptr)
declare ptr @PyObject_CallOneArg(ptr, ptr)
declare ptr @PyObject_Type(ptr)
declare void @PyErr_Fetch(ptr, ptr, ptr)
declare void @PyErr_NormalizeException(ptr, ptr, ptr)
declare void @PyErr_SetObject(ptr, ptr)
declare i32 @Py_AddPendingCall(ptr, ptr)
declare void @Py_DecRef(ptr)

; Entry point for XLA: returns NULL if Python returned DONE, else an error.
define ptr @enter(ptr %frame) {
  %before = atomicrmw add ptr @calls, i64 1 seq_cst
  %closed = icmp slt i64 %before, 0
  br i1 %closed, label %late, label %open
late:
  %no = call ptr @error(ptr %frame, ptr @ended)
  br label %leave
open:
  %answer = call ptr @ask(ptr %frame)
  %number = ptrtoint ptr %answer to i64
  switch i64 %number, label %leave [ i64 DONE, label %success
                                     i64 0, label %raised ]
success:
  br label %leave
raised:
  %failed = call ptr @error(ptr %frame, ptr @left)
  br label %leave
leave:
  %result = phi ptr [ %no, %late ], [ %answer, %open ], [ null, %success ], [ %failed, %raised ]
  %after = atomicrmw sub ptr @calls, i64 1 seq_cst
  ret ptr %result
}

; Make later calls fail; return how many are still in Python.
define i64 @close() {
  %before = atomicrmw or ptr @calls, i64 -9223372036854775808 seq_cst
  %count = and i64 %before, 9223372036854775807
  ret i64 %count
}

; Call Python; NULL if it raised.
define internal ptr @ask(ptr %frame) {
  %gil = call i32 @PyGILState_Ensure()
  %place = call ptr @PyLong_FromVoidPtr(ptr %frame)
  %nowhere = icmp eq ptr %place, null
  br i1 %nowhere, label %raised, label %called
called:
  %object = call ptr @PyObject_CallOneArg(ptr @handle, ptr %place)
  %none = icmp eq ptr %object, null
  br i1 %none, label %raised, label %returned
returned:
  %answer = call ptr @PyLong_AsVoidPtr(ptr %object)
  call void @Py_DecRef(ptr %object)
  %odd = icmp eq ptr %answer, null
  br i1 %odd, label %raised, label %leave
raised:
  call void @keep()
  br label %leave
leave:
  %result = phi ptr [ %answer, %returned ], [ null, %raised ]
  call void @Py_DecRef(ptr %place)
  call void @PyGILState_Release(i32 %gil)
  ret ptr %result
}

; Let the main thread raise the current exception.
define internal void @keep() {
  %kind = alloca ptr
  %value = alloca ptr
  %trace = alloca ptr
  call void @PyErr_Fetch(ptr %kind, ptr %value, ptr %trace)
  call void @PyErr_NormalizeException(ptr %kind, ptr %value, ptr %trace)
  %its.kind = load ptr, ptr %kind
  %its.value = load ptr, ptr %value
  %its.trace = load ptr, ptr %trace
  call void @Py_DecRef(ptr %its.kind)
  call void @Py_DecRef(ptr %its.trace)
  %full = call i32 @Py_AddPendingCall(ptr @raise, ptr %its.value)
  ret void
}

define internal i32 @raise(ptr %value) {
  %kind = call ptr @PyObject_Type(ptr %value)
  call void @PyErr_SetObject(ptr %kind, ptr %value)
  call void @Py_DecRef(ptr %kind)
  call void @Py_DecRef(ptr %value)
  ret i32 -1
}

; Create an error with XLA's function. A metadata query may lack the interface, and then gets none.
define internal ptr @error(ptr %frame, ptr %arguments) {
  %api.place = getelementptr i8, ptr %frame, i64 API
  %api = load ptr, ptr %api.place
  %missing = icmp eq ptr %api, null
  br i1 %missing, label %none, label %there
there:
  %create.place = getelementptr i8, ptr %api, i64 CREATE
  %create = load ptr, ptr %create.place
  %made = call ptr %create(ptr %arguments)
  ret ptr %made
none:
  ret ptr null
}
"""


@dataclass(frozen=True)
class Entry:
    """Machine code that calls one Python function with a frame's address."""

    address: int  # of the function that XLA calls
    close: Callable[[], int]  # refuses further calls; returns how many are still running
    owners: tuple[object, ...] = field(repr=False)


def entry_for(handle: Callable[[int], int], left: Any, ended: Any, api: int, create: int) -> Entry:
    """Create the entry to `handle`, which returns DONE or an error's address.

    `left` and `ended` are the error arguments for an exception in a call and for a call after the program's end. `api`
    is the offset of XLA's interface in a frame, `create` the offset in it of the function that creates errors.
    """
    text = CODE.replace("DONE", str(DONE)).replace("API", str(api)).replace("CREATE", str(create))
    machine = machine_for(target())
    compiler = llvm().create_lljit_compiler(machine, use_jit_link=True)
    builder = llvm().JITLibraryBuilder().add_ir(text).export_symbol("enter").export_symbol("close")
    for name in (line.split("@")[1].split("(")[0] for line in CODE.splitlines() if line.startswith("declare")):
        builder.import_symbol(name, ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value)
    builder.import_symbol("handle", id(handle))
    builder.import_symbol("left", ctypes.addressof(left)).import_symbol("ended", ctypes.addressof(ended))
    library = builder.link(compiler, "jax")
    close = ctypes.CFUNCTYPE(ctypes.c_int64)(library["close"])
    return Entry(library["enter"], close, (library, compiler, machine, handle, left, ended))
