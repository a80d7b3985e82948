"""The operations that the graph of a job's own model may hold: functions of ATen, by name and overload.

Each has no effect beside its result, is repeatable, gives a shape that no value decides, and cannot fail because of a
value: no row can make training raise. That is why there is no embedding and no gather (an index out of range raises),
no division of integers, no solver, no randomness, and nothing in place.
"""

from __future__ import annotations

import torch

DTYPES = {"bool": torch.bool, "float32": torch.float32, "int64": torch.int64}
TEXTS = {"approximate": ("none", "tanh")}
MAYBE_NUMBER = ("exponent", "other")  # tensors for which torch takes a number too
LEFT_OUT = ("device", "implicit", "layout", "memory_format", "non_blocking", "pin_memory")
ITEM = "item"  # our own: one of the results of an operation that has several
OPERATIONS = frozenset(
    f"{name}.default"
    for name in (
        "_adaptive_avg_pool2d", "_log_softmax", "_softmax", "_to_copy", "abs", "acos", "acosh", "adaptive_avg_pool1d",
        "addmm", "amax", "amin", "any", "asin", "asinh", "atan", "atan2", "atanh", "avg_pool1d", "avg_pool2d",
        "bitwise_not", "bmm", "cat", "ceil", "clamp", "constant_pad_nd", "convolution", "cos", "cosh", "cumsum",
        "elu", "erf", "exp", "expand", "expm1", "flip", "floor", "full_like", "gelu", "hardtanh", "index_select",
        "isinf", "isnan", "leaky_relu", "log", "log10", "log1p", "log2", "logical_and", "logical_not",
        "logical_or", "logical_xor", "max_pool2d_with_indices", "maximum", "mean", "minimum", "mm",
        "native_group_norm", "native_layer_norm", "neg", "permute", "reciprocal", "reflection_pad1d",
        "reflection_pad2d", "relu", "repeat", "replication_pad2d", "reshape", "round", "rsqrt", "sigmoid", "sign",
        "sin", "sinh", "split_with_sizes", "sqrt", "squeeze", "sum", "tan", "tanh", "trunc", "unsqueeze",
    )
) | {
    "add.Scalar", "add.Tensor", "any.dim", "any.dims", "bitwise_and.Tensor", "bitwise_or.Tensor", "clamp.Tensor",
    "div.Scalar", "div.Tensor", "eq.Scalar", "eq.Tensor", "ge.Scalar", "ge.Tensor", "gt.Scalar", "gt.Tensor",
    "le.Scalar", "le.Tensor", "lt.Scalar", "lt.Tensor", "max.dim", "mean.dim", "min.dim", "mul.Scalar", "mul.Tensor",
    "ne.Scalar", "ne.Tensor", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "prod.dim_int", "select.int", "slice.Tensor",
    "squeeze.dim", "squeeze.dims", "sub.Scalar", "sub.Tensor", "sum.dim_IntList", "var.correction", "where.self",
}  # fmt: skip
