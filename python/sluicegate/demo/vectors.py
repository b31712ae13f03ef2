"""Embeddings without a model: each word is hashed to a few places of a vector, so like texts are near."""

import base64
import hashlib
import math
import sys
from array import array

DIMENSIONS = 384
# Places a word touches. Eight keep two unrelated words nearly at a right angle in 384 dimensions.
PLACES = 8


def embed(text: str, dimensions: int) -> list[float]:
    """A vector of length one; the same text always gives the same numbers, on every machine."""
    vector = [0.0] * dimensions
    for word in [*text.lower().split(), ""]:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4 * PLACES).digest()
        for place in range(0, 4 * PLACES, 4):
            number = int.from_bytes(digest[place : place + 4], "little")
            vector[(number >> 1) % dimensions] += 1.0 if number & 1 else -1.0
    length = math.sqrt(sum(value * value for value in vector))
    if length == 0.0:  # every place cancelled out: only in a handful of dimensions
        return [1.0] + [0.0] * (dimensions - 1)
    return [value / length for value in vector]


def encode(vector: list[float], encoding: str) -> list[float] | str:
    """As numbers, or as base64 of little-endian 32-bit floats: what the official Python client asks for."""
    if encoding == "float":
        return vector
    packed = array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode("ascii")
