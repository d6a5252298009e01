"""Winograd's algorithm: 3x3 convolutions on a CPU with a quarter of the multiplications.

Two neighbouring outputs of a convolution share inputs, so computing each by itself repeats work. Winograd's minimal
filtering F(4x4, 3x3) (Lavin & Gray, https://arxiv.org/abs/1509.09308) computes a tile of 4x4 outputs from a window d of
6x6 inputs and the filter g of 3x3 weights as

    Y = A^T [(G g G^T) * (B^T d B)] A

where * multiplies element by element: 36 multiplications in place of 16 * 9. In a layer these products are summed over
the input channels, so each of the 36 positions is a matrix product of (tiles, C_in) with (C_in, C_out), which a CPU
computes fast. The backward pass applies the transposed matrices in the opposite order.

It has two costs. The transforms B^T d B and A^T m A (m is the sum of the products) take time, so it does not pay for
few channels (`gain`). And it rounds more: in float32, results differ from the ordinary convolution by about a
hundred-thousandth of the largest of them. An infinite or NaN input makes all outputs of its tiles NaN, not only those
that use it.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cvcc_zoo.internals.torch import convolution_backward, is_batched

TILE, WINDOW = 4, 6
BLOCK = 512
"""Tiles that are transformed at a time, or those of one image if it has more: with few, their values stay in the caches
of the processor. The transformed values need more than twice the memory of these images."""
FLOAT32: Any = {"dtype": torch.float32, "device": "cpu"}
"""What the matrices are, whatever torch's default dtype and device."""
BT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    **FLOAT32,
)
G = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    **FLOAT32,
)
AT = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], **FLOAT32)
B, GT, A = (each.T.contiguous() for each in (BT, G, AT))


def gain(in_channels: int, out_channels: int, height: int, width: int) -> float:
    """Return about how many times as fast as torch's a training step of this convolution is; height, width of outputs.

    The model is a fit to measurements in float32 on one core of a processor with AVX2: 1.5 times as fast with 64
    channels and 32x32 pixels, 2 with 128 and 16x16, 2.4 with 256 and 15x15, for which it gives 1.4, 2.0 and 2.2. It
    has three parts. A quarter of the multiplications, done at 0.8 of the speed, would be 3.2 times as fast.
    Transforming the inputs takes as long as the products for 39 output channels, and transforming the outputs as long
    as those for 39 input channels. Of the outputs in tiles that cross the edge of the image, only a share is used.
    """
    if 0 in (in_channels, out_channels):  # a LazyConv2d before its first images
        return 0.0
    tiles = -(-height // TILE) * -(-width // TILE)
    used = height * width / (tiles * TILE**2)
    return 3.2 / (1 + 39 / in_channels + 39 / out_channels) * used


def winograd_conv2d(input: Tensor, weight: Tensor, padding: int = 1) -> Tensor:
    """Convolve input (N, C_in, H, W) with weight (C_out, C_in, 3, 3), stride 1: `conv2d` without bias.

    Returns (N, C_out, H + 2 padding - 2, W + 2 padding - 2) in the memory format of the input. It can be differentiated
    as often as `conv2d`, but not in forward mode or by torch.func. Raises ValueError unless both are in float32 on the
    CPU with these shapes, and the padding is 0, 1 or 2.
    """
    if not (input.dtype == weight.dtype == torch.float32 and input.device.type == weight.device.type == "cpu"):
        raise ValueError(
            f"winograd_conv2d computes in float32 on the CPU, not in {input.dtype} with weights in {weight.dtype} on "
            f"{input.device.type}; use torch.nn.functional.conv2d"
        )
    if input.ndim != 4 or weight.shape[1:] != (input.shape[1], 3, 3) or padding not in (0, 1, 2):
        raise ValueError(
            "winograd_conv2d takes images (N, C_in, H, W), weights (C_out, C_in, 3, 3) and a padding of 0, 1 or 2, "
            f"not {tuple(input.shape)}, {tuple(weight.shape)} and {padding}"
        )
    if min(input.shape[2:]) + 2 * padding < 3:
        raise ValueError(f"images of {input.shape[2]}x{input.shape[3]} pixels are too small for a window of 3x3")
    output: Tensor = _Convolution.apply(input, weight, padding)
    dense = input.is_contiguous() and not input.is_contiguous(memory_format=torch.channels_last)
    return output.contiguous() if dense else output


class _Tiling:
    """How the outputs (N, C_out, height, width) of a convolution are cut into tiles."""

    def __init__(self, input: Tensor, weight: Tensor, padding: int) -> None:
        self.images, self.in_channels = input.shape[:2]
        self.out_channels = len(weight)
        self.height, self.width = (size + 2 * padding - 2 for size in input.shape[2:])
        self.rows, self.columns = -(-self.height // TILE), -(-self.width // TILE)
        self.padding = padding

    def blocks(self) -> Iterator[slice]:
        """Yield the images whose tiles are transformed together."""
        step = max(1, BLOCK // (self.rows * self.columns))
        for start in range(0, self.images, step):
            yield slice(start, start + step)

    def inputs(self, images: Tensor) -> Tensor:
        """Return B^T d B of all windows of images (n, C_in, H, W): (36, tiles, C_in)."""
        windows = _cut(images, WINDOW, self.rows, self.columns, self.padding)
        return _sandwich(BT, windows).view(WINDOW**2, -1, self.in_channels)

    def output_gradients(self, grad: Tensor) -> Tensor:
        """Return A y A^T of the gradients y of all tiles, (n, C_out, height, width): (36, tiles, C_out)."""
        tiles = _cut(grad, TILE, self.rows, self.columns, 0)
        return _sandwich(A, tiles).view(WINDOW**2, -1, self.out_channels)

    def outputs(self, products: Tensor, there: Tensor) -> None:
        """Write A^T m A of products m (36, tiles, C_out) there, (n, height, width, C_out)."""
        tiles = _sandwich(AT, products).view(TILE, TILE, -1, self.rows, self.columns, self.out_channels)
        tiles = tiles.permute(2, 3, 0, 4, 1, 5)
        height, width = TILE * self.rows, TILE * self.columns
        if (height, width) == (self.height, self.width):
            self._tiled(there).copy_(tiles)
        else:
            joined = tiles.reshape(-1, height, width, self.out_channels)
            there.copy_(joined[:, : self.height, : self.width])

    def _tiled(self, images: Tensor) -> Tensor:
        """Return (n, rows, 4, columns, 4, C) of images (n, 4 rows, 4 columns, C)."""
        n, height, width, channels = images.shape
        return images.view(n, self.rows, height // self.rows, self.columns, width // self.columns, channels)

    def input_gradients(self, products: Tensor) -> Tensor:
        """Return B m B^T of products m (36, tiles, C_in), summed where windows overlap: (n, H, W, C_in)."""
        windows = _sandwich(B, products).view(WINDOW, WINDOW, -1, self.rows, self.columns, self.in_channels)
        windows = windows.permute(2, 3, 0, 4, 1, 5)
        height, width = TILE * self.rows, TILE * self.columns
        total = products.new_zeros(len(windows), height + TILE, width + TILE, self.in_channels)
        for i, j in ((0, 0), (0, TILE), (TILE, 0), (TILE, TILE)):  # windows reach two pixels into the next tiles
            part = windows[:, :, i : i + TILE, :, j : j + TILE]
            there = self._tiled(total[:, i : i + height, j : j + width])
            there[:, :, : part.shape[2], :, : part.shape[4]].add_(part)
        cut = self.padding  # the padding has no gradients
        return total[:, cut : self.height + 2 - cut, cut : self.width + 2 - cut]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, padding: int) -> Tensor:
        """Return the outputs in channels_last."""
        ctx.save_for_backward(input, weight)
        ctx.padding = padding
        tiling = _Tiling(input, weight, padding)
        size = tiling.images, tiling.out_channels, tiling.height, tiling.width
        output = torch.empty(size, memory_format=torch.channels_last, **FLOAT32)
        there, filters = output.permute(0, 2, 3, 1), _filters(weight)
        for block in tiling.blocks():
            tiling.outputs(torch.bmm(tiling.inputs(input[block]), filters), there[block])
        return output  # not a view, which could not be changed in place

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients of input and weight."""
        input, weight = ctx.saved_tensors
        of_input, of_weight, _ = ctx.needs_input_grad
        if torch.is_grad_enabled() or is_batched(grad):  # with create_graph=True or is_grads_batched=True
            first, second = convolution_backward(grad, input, weight, ctx.padding, (of_input, of_weight))
            return first, second, None
        tiling = _Tiling(input, weight, ctx.padding)
        if of_input:
            filters = _filters(weight).transpose(1, 2)
            there = torch.empty_like(input.permute(0, 2, 3, 1), memory_format=torch.contiguous_format)
        filter_gradients = weight.new_zeros(WINDOW**2, tiling.in_channels, tiling.out_channels)
        for block in tiling.blocks():
            products = tiling.output_gradients(grad[block])
            if of_weight:
                filter_gradients.baddbmm_(tiling.inputs(input[block]).transpose(1, 2), products)
            if of_input:
                there[block] = tiling.input_gradients(torch.bmm(products, filters))
        windows = _sandwich(GT, filter_gradients).view(3, 3, tiling.in_channels, tiling.out_channels)
        return there.permute(0, 3, 1, 2) if of_input else None, windows.permute(3, 2, 0, 1) if of_weight else None, None


def _filters(weight: Tensor) -> Tensor:
    """Return G g G^T of weights (C_out, C_in, 3, 3): (36, C_in, C_out)."""
    filters = _sandwich(G, weight.permute(2, 3, 1, 0).reshape(9, -1))
    return filters.view(WINDOW**2, weight.shape[1], weight.shape[0])


def _sandwich(matrix: Tensor, x: Tensor) -> Tensor:
    """Return matrix @ X @ matrix^T for each of many square X: with matrix (a, b), from (b * b, ...) to (a * a, ...)."""
    a, b = matrix.shape
    columns = torch.bmm(matrix.expand(b, a, b), x.view(b, b, -1).transpose(0, 1))  # (b, a, ...), a row for each j
    return torch.bmm(matrix.expand(a, a, b), columns.transpose(0, 1)).view(a * a, -1)


def _cut(images: Tensor, side: int, rows: int, columns: int, padding: int) -> Tensor:
    """Return windows of side x side pixels, four pixels apart, of images (n, C, H, W): (side * side, tiles * C).

    The images are padded with zeros: with `padding` at the top and left, and as far as needed elsewhere.
    """
    n, channels, height, width = images.shape
    full_height, full_width = TILE * (rows - 1) + side, TILE * (columns - 1) + side
    padded = images.new_zeros(n, full_height, full_width, channels)
    bottom, right = min(height, full_height - padding), min(width, full_width - padding)
    padded[:, padding : padding + bottom, padding : padding + right] = images[:, :, :bottom, :right].permute(0, 2, 3, 1)
    windows = padded.unfold(1, side, TILE).unfold(2, side, TILE)  # (n, rows, columns, C, side, side)
    return windows.permute(4, 5, 0, 1, 2, 3).reshape(side * side, -1)
