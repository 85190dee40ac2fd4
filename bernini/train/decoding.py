"""The loss in ViT space: the decoder over many noises of each masked token, a few tokens at a time.

A row (one token with one noise) leaves 1.5 MiB for the backward pass at the released size, more
than the whole planner leaves of a token, and there are K of them. Rows do not see each other, so
they are taken in runs of whole tokens, and each run is held as asked (`PassOptions`).

M masked tokens of a pack, K noise draws, V width of a ViT feature.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from bernini.flow import NUM_TRAIN_TIMESTEPS
from bernini.planner.heads import DecoderNet
from bernini.renderer.layers import wide
from bernini.train.passes import PassOptions

ROWS = 2048  # of one run: 3 GiB in bfloat16 at the released size, and enough to keep a GPU busy


def learn(net: DecoderNet) -> DecoderNet:
    """Gives the decoder a method `errors`: sharding acts on one call of it, whatever the number of runs."""
    net.errors = partial(errors, net)
    return net


def errors(
    net: DecoderNet, condition: Tensor, clean: Tensor, noise: Sequence[Tensor], sigma: Sequence[Tensor],
    options: PassOptions,
) -> Tensor:
    """Squared error of each velocity, mean over values: `[K, M]`.

    `condition` and `clean` `[M, V]`; `noise` `[K, m, V]` and its levels `sigma` `[K, m]` document by document.
    """
    size = max(1, ROWS // len(noise[0]))
    found = []
    runs = zip(condition.split(size), clean.split(size), cut(noise, size), cut(sigma, size), strict=True)
    for shown, x, eps, level in runs:
        # Only the condition needs a gradient: the rest is there anyway and is not moved or held again.
        found.append(options.run(partial(_run, net, x, eps, level), shown))
    return torch.cat(found, dim=1)


def _run(net: DecoderNet, x: Tensor, eps: Sequence[Tensor], level: Sequence[Tensor], shown: Tensor) -> Tensor:
    """Errors `[K, n]` of a run of n tokens."""
    noise, sigma = torch.cat(list(eps), dim=1).to(x.dtype), torch.cat(list(level), dim=1)
    clean = x.expand_as(noise)
    noisy = torch.lerp(clean, noise, sigma[..., None].to(x.dtype))
    rows = shown.expand(len(noise), -1, -1).flatten(0, 1)
    velocity = net.forward(noisy.flatten(0, 1), NUM_TRAIN_TIMESTEPS * sigma.flatten(), rows)
    return (wide(velocity) - wide(noise - clean).flatten(0, 1)).square().mean(1).view(sigma.shape)


def cut(parts: Sequence[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Parts `[K, m, …]` as if joined along m, in runs of `size`: lists of views. At least one run, if an empty one."""
    run, room = [], size
    for part in parts:
        while part.shape[1]:
            run.append(part[:, :room])
            room -= run[-1].shape[1]
            part = part[:, run[-1].shape[1] :]
            if not room:
                yield run
                run, room = [], size
    if run or not any(part.shape[1] for part in parts):
        yield run or [parts[0]]
