"""A program of its own: compile a network for painting, and say what the compiler was given; no kernel is written."""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from tiny_networks import awake, some_condition, some_noise, tiny

from bottega.models.unet_config import Transformer

given = []


def listening(graph, _):
    given.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
    return graph


def main(dtype):
    network = awake(tiny(attention=Transformer(depth=1, head_width=32))).to(getattr(torch, dtype))
    x, c_noise = some_noise(size=32)
    with torch.inference_mode():
        context = network.prepare(some_condition())
        plain = network(x, c_noise, context).float()
        said = torch.compile(network, backend=listening)(x, c_noise, context).float()
    ours = [name for graph in given for name in graph if name.startswith("bottega.")]
    apart = float((plain - said).abs().max() / plain.abs().max())
    told = {name: ours.count(name) for name in set(ours)}
    graphs = len(given)
    given.clear()
    torch._dynamo.reset()
    context = network.prepare(some_condition())
    x, c_noise = some_noise(size=32)
    learning = torch.compile(network, backend=listening)(x, c_noise, context)
    recorded = [name for graph in given for name in graph if name.startswith("bottega.")]
    assert learning.requires_grad
    print(json.dumps({"graphs": graphs, "apart": apart, "ops": told, "recorded": recorded}))


if __name__ == "__main__":
    main(sys.argv[1])
