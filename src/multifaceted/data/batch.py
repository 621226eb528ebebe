"""How large an optimizer step is, and how it is cut into forward passes: one row of packed trees each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from multifaceted.data.packing import padded_rows, step_rows
from multifaceted.trees import TokenTree, TreeRows, lay_out
from multifaceted.work import Work


@dataclass(kw_only=True, slots=True)
class Batch:
    """How much an optimizer step averages over, and how much of it a device holds at once.

    Give `examples` or `tokens`.

    Attributes:
        examples: examples of an optimizer step, over all ranks, whatever rows they need.
        tokens: tokens of an optimizer step, over all ranks: so many full rows, with whatever examples fill them.
        max_tokens: most tokens of one forward pass of one device, which is one row.
        look_ahead: how many examples may wait for a row that they fill, where rows are not those of `examples`: with
            `tokens`, in validation and in the reference pass.
        packing: several trees share a row; otherwise each has its own, padded to the longest of its pass.
        share_prefix: a prompt stands once before all its branches; otherwise before each.
    """

    examples: int | None = None
    tokens: int | None = None
    max_tokens: int = 8192
    look_ahead: int = 64
    packing: bool = True
    share_prefix: bool = True

    def __post_init__(self) -> None:
        if (self.examples is None) == (self.tokens is None):
            raise ValueError(
                f"examples is {self.examples} and tokens is {self.tokens}: give one of them and set the other to null"
            )
        for name in ("examples", "tokens", "max_tokens", "look_ahead"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if self.tokens is not None and not self.packing:
            raise ValueError(f"tokens is {self.tokens} and packing is false: tokens counts packed rows; set examples")
        if self.tokens is not None and self.tokens % self.max_tokens:
            raise ValueError(f"tokens is {self.tokens}; it must be a multiple of max_tokens={self.max_tokens}")

    def check_ranks(self, world_size: int) -> None:
        """Refuse a number of ranks that full rows cannot be dealt to.

        Raises:
            ValueError: names the numbers.
        """
        if self.tokens is not None and self.tokens % (self.max_tokens * world_size):
            least = self.max_tokens * world_size
            raise ValueError(
                f"tokens is {self.tokens}, and {world_size} ranks with rows of {self.max_tokens} tokens need a multiple"
                f" of {least}; set batch.tokens={-(-self.tokens // least) * least}"
            )

    def cost(self, tree: TokenTree) -> int:
        """Tokens of a tree as it is laid out, without padding."""
        return len(tree) if self.share_prefix else sum(map(len, tree.paths))

    def passes(self, trees: Sequence[TokenTree], world_size: int = 1) -> list[list[int]]:
        """Indices of the trees of each forward pass, for all ranks."""
        if self.packing:
            return step_rows([self.cost(tree) for tree in trees], self.max_tokens, world_size)
        return padded_rows([[len(piece) for piece in self.pieces(tree)] for tree in trees], self.max_tokens)

    def check_trees(self, trees: Sequence[TokenTree]) -> None:
        """Refuse a tree that no row holds; sharing on, data is encoded so that there is none.

        Raises:
            ValueError: names the example.
        """
        for tree in trees:
            lengths = [len(piece) for piece in self.pieces(tree)]
            cost = sum(lengths) if self.packing else len(lengths) * max(lengths)
            if cost > self.max_tokens:
                raise ValueError(
                    f"example {tree.id!r} takes {cost} tokens, and batch.max_tokens={self.max_tokens}; raise it, or set"
                    " batch.share_prefix=true"
                )

    def pieces(self, tree: TokenTree) -> list[TokenTree]:
        """The trees as which an example is laid out."""
        return [tree] if self.share_prefix else tree.paths

    def lay_out(self, trees: Sequence[TokenTree], *, on_gpu: bool) -> TreeRows:
        """The rows of one forward pass; of few widths on a GPU, whose kernels are compiled for each."""
        pieces = [piece for tree in trees for piece in self.pieces(tree)]
        together = [list(range(len(pieces)))] if self.packing else None
        return lay_out(pieces, together, multiple_of=self._widths(on_gpu=on_gpu))

    def work(self, passes: Iterable[Sequence[TokenTree]], *, on_gpu: bool) -> Work:
        """The work of forward passes, with the positions of the rows that `lay_out` makes of them."""
        multiple = self._widths(on_gpu=on_gpu)
        total = Work()
        for trees in passes:
            lengths = [len(piece) for tree in trees for piece in self.pieces(tree)]
            rows, width = (1, sum(lengths)) if self.packing else (len(lengths), max(lengths))
            laid_out = rows * -(-width // multiple) * multiple
            total += Work.of(trees) + Work(laid_out=laid_out, padding=laid_out - sum(lengths))
        return total

    def _widths(self, *, on_gpu: bool) -> int:
        return -(-self.max_tokens // 8) if on_gpu else 1
