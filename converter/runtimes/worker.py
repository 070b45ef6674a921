"""Runs TFLite models for another process: the one script that a runtime needs where the model runs.

Needs only NumPy and `tflite_runtime` or `ai_edge_litert`; it is started here, or copied to a device and started there,
and speaks on standard input and output. A message is a 4-byte length, a JSON header, and the bytes of the arrays that
the header lists. A crash of the native runtime ends this process, not the one that asks.
"""

import importlib
import json
import struct
import sys
import time

import numpy as np


def read_exactly(stream, count):
    parts = []
    while count:
        part = stream.read(min(count, 1 << 20))
        if not part:
            raise EOFError("the other end closed the connection")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def receive(stream):
    """`(header, arrays)` of the next message."""
    (length,) = struct.unpack("<I", read_exactly(stream, 4))
    header = json.loads(read_exactly(stream, length))
    arrays = []
    for dtype, shape in header.pop("arrays"):
        data = read_exactly(stream, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
        arrays.append(np.frombuffer(data, np.dtype(dtype)).reshape(shape))
    return header, arrays


def send(stream, header, arrays=()):
    """Writes one message."""
    arrays = [np.asarray(a, order="C") for a in arrays]
    described = json.dumps(dict(header, arrays=[[a.dtype.str, a.shape] for a in arrays])).encode()
    stream.write(struct.pack("<I", len(described)) + described)
    for array in arrays:
        stream.write(array.tobytes())
    stream.flush()


def load(package, model, kernels, threads):
    """An interpreter with allocated tensors; `kernels` is builtin, ref or xnnpack."""
    module = importlib.import_module(package + ".interpreter")
    types = module.OpResolverType
    resolver = {
        "builtin": types.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "ref": types.BUILTIN_REF,
        "xnnpack": types.AUTO,
    }[kernels]
    interpreter = module.Interpreter(
        model_content=model,
        num_threads=threads,
        experimental_op_resolver_type=resolver,
        experimental_preserve_all_tensors=False,
    )
    interpreter.allocate_tensors()
    return interpreter


def invoke(interpreter, arrays, repeats):
    """Outputs of every sample of a batch, and the nanoseconds of every invocation (`repeats` per sample)."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    batch = len(arrays[0]) // max(1, int(inputs[0]["shape"][0])) if len(inputs[0]["shape"]) else 1
    collected, times = [[] for _ in outputs], []
    for sample in range(batch):
        for detail, array in zip(inputs, arrays):  # noqa: B905 - devices may have an older Python
            size = int(detail["shape"][0]) if len(detail["shape"]) else 1
            part = array[sample * size : (sample + 1) * size] if array.ndim else array
            interpreter.set_tensor(detail["index"], part)
        for _ in range(repeats):
            start = time.perf_counter_ns()
            interpreter.invoke()
            times.append(time.perf_counter_ns() - start)
        for detail, kept in zip(outputs, collected):  # noqa: B905
            kept.append(interpreter.get_tensor(detail["index"]))
    joined = [k[0] if batch == 1 or not k[0].ndim else np.concatenate(k) for k in collected]
    return joined, times


def peak_memory_bytes():
    """Peak resident memory of this process, None where the system does not tell."""
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    except ImportError:
        return None


def serve(source, sink):
    """Answers requests until the input ends. A failed request is answered with its error."""
    models = {}
    while True:
        try:
            header, arrays = receive(source)
        except EOFError:
            return
        try:
            if header["do"] == "load":
                start = time.perf_counter_ns()
                model = load(header["package"], arrays[0].tobytes(), header["kernels"], header["threads"])
                models = {header["handle"]: model}
                send(sink, {"ok": True, "load_ns": time.perf_counter_ns() - start})
            elif header["do"] == "invoke":
                outputs, times = invoke(models[header["handle"]], arrays, header.get("repeats", 1))
                send(sink, {"ok": True, "times_ns": times, "peak_memory_bytes": peak_memory_bytes()}, outputs)
        except Exception as error:
            send(sink, {"ok": False, "error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    output = sys.stdout.buffer
    sys.stdout = sys.stderr  # libraries that print must not break the protocol
    serve(sys.stdin.buffer, output)
