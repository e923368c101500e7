"""Core ML packages of a model and its adapters, checked against the codes that they were made from.

They are built on any machine and run on Apple's only: coremltools has no runtime elsewhere. What can be checked is
checked at every export: each weight matrix is read back from the written file, decoded as its operation's definition
says, and compared with Pippin's own. A test computes whole programs with NumPy (`tests/interop/mil.py`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pippin.errors import UserError
from pippin.files import atomic_directory
from pippin.interop.coreml_program import KINDS, Adapter, build_program
from pippin.interop.directory import GROUP_ROWS
from pippin.interop.stored import StoredModel

CHUNK = 64
_WEIGHTS = Path("Data/com.apple.CoreML/weights")
_READERS = {
    "UINT2": "read_uint2_data", "UINT4": "read_uint4_data", "INT8": "read_int8_data", "FLOAT16": "read_fp16_data",
    "FLOAT32": "read_float_data",
}  # fmt: skip


class Checked(NamedTuple):
    """What was compared: numbers of weights by how they are stored, and the largest relative difference to Pippin's."""

    palettized: int
    int8: int
    dense: int
    functions: int
    difference: float


def export_coreml(
    model: StoredModel,
    path: str | Path,
    kind: str = "float16",
    context: int | None = None,
    adapters: Mapping[str, Adapter] | None = None,
    progress: Callable[[int], object] = lambda n: None,
) -> Checked:
    """Write an .mlpackage for iOS 18, macOS 15 and later; `coreml_program` says what is in it.

    Args:
        model: packed, or dense (its weights are then stored in `kind`).
        path: of the package, which must end in ".mlpackage"; replaced if it is there.
        kind: "float16", which the Neural Engine computes in, or "float32", in which the weights are exact.
        context: tokens that the cache holds; None: what the model was trained for.
        adapters: each becomes a function of this name over the same weights.
        progress: called with 1 for each layer of each function.
    Returns:
        What was read back and compared.
    Raises:
        UserError: coremltools is missing, the name of the package is wrong, an unknown kind or context, a value that
            float16 does not hold, or no space left.
        ValueError: the written package does not hold the model's weights.
    """
    path, adapters = Path(path), adapters or {}
    context = context or model.config.max_seq_len
    if path.suffix != ".mlpackage":
        raise UserError(f"out: value {str(path)!r}: must end in .mlpackage, or Core ML does not open it")
    if kind not in KINDS:
        raise UserError(f"type: value {kind!r}: must be one of {', '.join(KINDS)}")
    if not 1 < context <= model.config.max_seq_len:
        raise UserError(f"context: value {context}: must be from 2 to {model.config.max_seq_len}, the model's own")
    import coremltools as ct
    from coremltools.converters.mil.backend.mil.load import load as to_spec

    program = build_program(model, kind, context, min(CHUNK, context), adapters, progress)
    with atomic_directory(path) as temporary, tempfile.TemporaryDirectory(dir=temporary.parent) as weights:
        spec = to_spec(program, weights, specification_version=ct.target.iOS18, convert_to="mlprogram")
        spec.description.metadata.shortDescription = (
            "One chunk of tokens to the logits of the next; keys and values are states."
        )
        spec.description.metadata.userDefined["made_by"] = "pippin export --to coreml"
        spec.description.metadata.userDefined["context"] = str(context)
        package = temporary / "package.mlpackage"
        ct.utils.save_spec(spec, str(package), weights_dir=weights)
        checked = check_package(package, model, kind)
        for item in package.iterdir():
            item.rename(temporary / item.name)
        package.rmdir()
    return checked


def check_package(package: Path, model: StoredModel, kind: str) -> Checked:
    """Decode every weight matrix of a written package and compare it with the model's.

    Raises:
        ValueError: a weight is missing, or its codes, or its values beyond the roundings of `kind`, are others.
    """
    import coremltools as ct

    spec = ct.utils.load_spec(str(package))
    reader = _Reader(package / _WEIGHTS)
    places: dict[str, list[int]] = {}
    counts, difference = {"palettized": 0, "int8": 0, "dense": 0}, 0.0
    functions = dict(spec.mlProgram.functions)
    for function_name in sorted(functions, key=lambda name: name != "main"):
        function = functions[function_name]
        operations = function.block_specializations[function.opset].operations
        made = {operation.outputs[0].name: operation for operation in operations if operation.outputs}
        for name in model.shapes:
            if not (model.is_projection(name) or model.is_embedding(name)):
                continue
            operation = made.get(name.replace(".", "_"))
            if operation is None:
                raise ValueError(f"{package}: {function_name}: {name} is missing")
            if function_name != "main":  # the same bytes as those that were compared
                if reader.places(operation, made) != places[name]:
                    raise ValueError(f"{package}: {function_name}: {name} is stored a second time")
                continue
            places[name] = reader.places(operation, made)
            how, found = _decode(reader, operation, made, model, name)
            counts[how] += 1
            expected = model.dense(name)
            scale = np.abs(expected).max(initial=0.0) or 1.0
            difference = max(difference, float(np.abs(found.astype(np.float32) - expected).max(initial=0.0) / scale))
    if difference > (0.0 if kind == "float32" else 2.0**-10):
        raise ValueError(f"{package}: a weight differs from the model's by {difference:.3g} of its largest value")
    return Checked(**counts, functions=len(functions), difference=difference)


def _decode(
    reader: _Reader, operation: Any, made: Mapping[str, Any], model: StoredModel, name: str
) -> tuple[str, NDArray[Any]]:
    """How a weight is stored, and its values, as the definitions of the operations say."""
    if operation.type == "const":
        return "dense", reader.value(operation.attributes["val"])
    scale = reader.argument(operation, "scale")
    source = operation.inputs["data"].arguments[0]
    if source.WhichOneof("binding") == "value":
        codes = reader.value(source.value)
        if model.packed and not np.array_equal(codes, model.int8_rows(name).codes):
            raise ValueError(f"{name}: other codes than the model's")
        return "int8", codes.astype(scale.dtype) * scale
    looked_up = made[source.name]
    indices, lut = reader.argument(looked_up, "indices"), reader.argument(looked_up, "lut")
    if not np.array_equal(indices, model.palette(name).indices):
        raise ValueError(f"{name}: other codes than the model's")
    rows_per_table = len(indices) // len(lut)
    if rows_per_table not in (1, GROUP_ROWS):
        raise ValueError(f"{name}: a table serves {rows_per_table} rows")
    tables = lut[:, 0, :, 0].repeat(rows_per_table, 0)
    return "palettized", np.take_along_axis(tables, indices.astype(np.int64), 1) * scale


class _Reader:
    """Values of a written program, from its weight file."""

    def __init__(self, folder: Path) -> None:
        from coremltools.libmilstoragepython import _BlobStorageReader

        self._blobs = _BlobStorageReader(str(folder / "weight.bin"))

    def argument(self, operation: Any, name: str) -> NDArray[Any]:
        return self.value(operation.inputs[name].arguments[0].value)

    def value(self, value: Any) -> NDArray[Any]:
        """One constant; those of a few elements stand in the program itself."""
        tensor = value.type.tensorType
        shape = [dimension.constant.size for dimension in tensor.dimensions]
        dtype = type(tensor).DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number[tensor.dataType].name
        if value.WhichOneof("value") == "immediateValue":
            stored = value.immediateValue.tensor
            if dtype == "FLOAT32":
                return np.array(stored.floats.values, np.float32).reshape(shape)
            raw = np.frombuffer(stored.bytes.values, np.uint8)
            if dtype.startswith("UINT"):
                bits = int(dtype.removeprefix("UINT"))
                raw = (raw[:, None] >> np.arange(0, 8, bits, dtype=np.uint8) & (2**bits - 1)).ravel()[: np.prod(shape)]
            return raw.view({"FLOAT16": np.float16, "INT8": np.int8}.get(dtype, np.uint8)).reshape(shape)
        array = np.asarray(getattr(self._blobs, _READERS[dtype])(value.blobFileValue.offset))
        return (array.view(np.float16) if dtype == "FLOAT16" else array).reshape(shape)

    def places(self, operation: Any, made: Mapping[str, Any]) -> list[int]:
        """Offsets of all that an operation's value comes from."""
        found = [operation.attributes["val"].blobFileValue.offset] if operation.type == "const" else []
        for _, binding in sorted(operation.inputs.items()):
            for argument in binding.arguments:
                if argument.WhichOneof("binding") == "value":
                    found.append(argument.value.blobFileValue.offset)
                elif argument.name in made:
                    found += self.places(made[argument.name], made)
        return found
