"""Adam without torch's compiler."""

from __future__ import annotations

from inspect import unwrap

import torch

__all__ = ["Adam"]


class Adam(torch.optim.Adam):
    """torch's Adam, whose methods do not import ``torch._dynamo``.

    torch imports its compiler when an optimizer is made, to tell it to leave the optimizer alone. The import takes a
    second, as long as the training of a small network. Options, updates, hooks and state are those of torch.

    References:
        Adam: a method for stochastic optimization (Kingma and Ba, 2015), https://arxiv.org/abs/1412.6980

    Args:
        params: parameters, or parameter groups
        options: options of ``torch.optim.Adam``, except ``differentiable``

    Example:
        >>> Adam(torch.nn.Linear(2, 3).parameters(), lr=1e-3).defaults["lr"]
        0.001
    """

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    # without the hooks that torch adds, and will add to this class as well
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))
