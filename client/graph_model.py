"""A job's model, rebuilt from its graph: torch's own operations, and not a line of the job's Python.

Each example is computed by itself: the graph is a function of one example, `torch.vmap` maps it over a batch, and an
example's gradient is `torch.func.grad` of its own loss. So an example cannot depend on another, nothing is kept from
one to the next, and nothing is random: vmap refuses randomness, and the graph has no operation for it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from client.errors import GraphError
from client.graph import Graph
from client.losses import per_example_loss
from client.model_graph import parse


class GraphModel(nn.Module):
    """A module of the graph's parameters, in its order and under its names.

    Attributes:
        graph: What it computes.
    """

    def __init__(self, graph: Graph) -> None:
        """Raises GraphError: a parameter's name cannot be one."""
        super().__init__()
        self.graph = graph
        for name, shape in graph.parameters:
            *path, last = name.split(".")
            place: nn.Module = self
            try:
                for part in path:
                    if part not in dict(place.named_children()):
                        place.add_module(part, nn.Module())
                    place = place.get_submodule(part)
                place.register_parameter(last, nn.Parameter(torch.zeros(shape)))
            except (KeyError, AttributeError, TypeError):
                raise GraphError(f"a parameter cannot be called {name}: rename it") from None
        if [name for name, _ in self.named_parameters()] != [name for name, _ in graph.parameters]:
            raise GraphError("the model's parameters have no order: register each in __init__")

    def forward(self, examples: Tensor) -> Tensor:
        """Return the outputs of a batch, shape (B, ...)."""
        parameters = list(self.parameters())
        constants = self._constants(examples)
        outputs: Tensor = torch.vmap(lambda example: self.graph.run(parameters, example, constants))(examples)
        return outputs

    def leave_gradients(self, loss: str, examples: Tensor, labels: Tensor) -> None:
        """Put each example's gradient beside its parameter, shape (B, ...), where Opacus's hooks would put it."""
        held = list(self.parameters())
        constants = self._constants(examples)

        def of_one(parameters: list[Tensor], example: Tensor, label: Tensor) -> Tensor:
            output = self.graph.run(parameters, example, constants)
            return per_example_loss(loss, output.unsqueeze(0), label.unsqueeze(0))[0]

        values = [p.detach() for p in held]
        found = torch.vmap(torch.func.grad(of_one), in_dims=(None, 0, 0))(values, examples, labels)
        for p, gradient in zip(held, found, strict=True):
            p.grad_sample = gradient  # type: ignore[attr-defined]  # Opacus's own attribute

    def _constants(self, examples: Tensor) -> list[Tensor]:
        return [c.to(examples.device) for c in self.graph.constants]


def from_bytes(data: bytes, example_shape: tuple[int, ...]) -> GraphModel:
    """Rebuild a job's model from what its builder wrote.

    Args:
        data: The graph.
        example_shape: The shape of one example, by the data dictionary.

    Raises:
        GraphError: the graph is refused, or is of another shape.
    """
    graph = parse(data)
    if graph.example_shape != example_shape:
        raise GraphError(
            f"the model was built for examples of shape {graph.example_shape}, not {example_shape}"
        )
    return GraphModel(graph)
