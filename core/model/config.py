"""The sizes of a Llama: all that the mathematics needs to know of a checkpoint."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes and constants. `tied` shares the embedding with the output head.

    `rope_divisors` are what the D/2 rotary frequencies are divided by; none at all is 1 for each.
    `max_context` is the longest context, in tokens, that the model was trained for.
    """

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    hidden_dim: int
    vocab_size: int
    norm_eps: float
    rope_theta: float = 10000.0
    rope_divisors: tuple[float, ...] = ()
    tied: bool = False
    max_context: int = 4096

    def __post_init__(self) -> None:
        for name in ("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "vocab_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, not a positive number")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd, so it has no rotary pairs")
        if len(self.rope_divisors) not in (0, self.head_dim // 2):
            raise ValueError(f"{len(self.rope_divisors)} rotary divisors for a head_dim of {self.head_dim}")
        constants = (self.norm_eps, self.rope_theta, *self.rope_divisors)
        if not all(0 < value < math.inf for value in constants):
            raise ValueError("norm_eps, rope_theta or a rotary divisor is not a positive number")

    def shapes(self) -> dict[str, tuple[int, int] | tuple[int]]:
        """Every weight under Meta's name with its shape (rows, columns), in the order of computation."""
        heads, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        table: dict[str, tuple[int, int] | tuple[int]] = {
            "tok_embeddings.weight": (self.vocab_size, self.dim)
        }
        for i in range(self.n_layers):
            table |= {
                f"layers.{i}.attention_norm.weight": (self.dim,),
                f"layers.{i}.attention.wq.weight": (heads, self.dim),
                f"layers.{i}.attention.wk.weight": (kv, self.dim),
                f"layers.{i}.attention.wv.weight": (kv, self.dim),
                f"layers.{i}.attention.wo.weight": (self.dim, heads),
                f"layers.{i}.ffn_norm.weight": (self.dim,),
                f"layers.{i}.feed_forward.w1.weight": (self.hidden_dim, self.dim),
                f"layers.{i}.feed_forward.w2.weight": (self.dim, self.hidden_dim),
                f"layers.{i}.feed_forward.w3.weight": (self.hidden_dim, self.dim),
            }
        table["norm.weight"] = (self.dim,)
        if not self.tied:
            table["output.weight"] = (self.vocab_size, self.dim)
        return table
