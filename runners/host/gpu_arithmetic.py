"""Arithmetic of GPUs beside a trial's precision, as open_clip's training sets it."""

FLOAT32_PRODUCTS = "TF32"
"""Products of fp32 matrices: 10 bits of mantissa, several times faster; ``full`` for 23."""

CUDNN_BENCHMARK = True
"""True if cuDNN times its algorithms for each shape of a convolution and takes the fastest."""


def set_gpu_arithmetic(device_type: str) -> None:
    """Apply the constants to this process; a CPU stays as it is."""
    import torch  # noqa: PLC0415 - the constants are also read where torch is not loaded

    if device_type == "cuda":
        torch.set_float32_matmul_precision("high" if FLOAT32_PRODUCTS == "TF32" else "highest")
        torch.backends.cudnn.benchmark = CUDNN_BENCHMARK
