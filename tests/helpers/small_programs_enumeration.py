"""Small programs: discrete sites of the model alone, Markov chains, and further marks on sites."""

import pyro
import torch

from helpers.small_programs import small_program
from helpers.small_programs_discrete import START, local
from helpers.small_programs_draws import TABLE, X, binary, normal, observe


def model_only(place):
    def model(p, x):
        s = binary("y", p.b, marked=True) if place == "outside" else 0.0
        with pyro.plate("data", x.shape[-1]):
            y = binary("y", p.b, marked=True) if place == "inside" else s
            z = normal("z", p.v, 0.9)
            if place != "further":
                observe("x", p.w * y + z + p.c, x)
            else:
                with pyro.plate("inner", len(x), dim=-2):
                    y = binary("y", p.b, marked=True)
                    observe("x", p.w * y + z + p.c, x)

    def guide(p, x):
        with pyro.plate("data", x.shape[-1]):
            normal("z", p.a * (x if x.dim() == 1 else x.mean(0)) + p.d, p.t)

    return model, guide, START, TABLE[:2] if place == "further" else X


small_program("an enumerated site of the model alone")(lambda: model_only("inside"))
small_program("an enumerated switch of the model alone")(lambda: model_only("outside"))
small_program("an enumerated site of the model alone in a further plate", nesting=2)(lambda: model_only("further"))


def chain(guided, history=1):
    def model(p, x):
        with pyro.plate("data", len(x)):
            y = 0.0
            for t in pyro.markov(range(3), history=history):
                y = binary(f"y{t}", p.u * y + p.b, marked=True)
                observe(f"x{t}", p.w * y + p.c, x[:, t])

    def guide(p, x):
        if not guided:
            return
        with pyro.plate("data", len(x)):
            y = 0.0
            for t in pyro.markov(range(3), history=history):
                y = binary(f"y{t}", p.a * x[:, t] + p.v * y, marked=True)

    return model, guide, START, TABLE.T


def evidence_of_chain(p, x):
    """Return the exact log evidence by the forward algorithm."""
    values = torch.tensor([0.0, 1.0], dtype=torch.float64)
    step = torch.distributions.Bernoulli(logits=(p.u * values + p.b)[:, None]).log_prob(values)
    alpha = step[0]
    for t in range(3):
        alpha = alpha + torch.distributions.Normal(p.w * values + p.c, 0.7).log_prob(x[:, t, None])
        if t < 2:
            alpha = (alpha.unsqueeze(-1) + step).logsumexp(-2)
    return alpha.logsumexp(-1).sum()


small_program("a Markov chain, enumerated", evidence=evidence_of_chain)(lambda: chain(True))
small_program("a Markov chain of the model alone", exact=evidence_of_chain)(lambda: chain(False))
small_program("a Markov chain whose history is too short", valid=False)(lambda: chain(False, history=0))
small_program("a Markov chain of the guide whose history is too short", valid=False)(lambda: chain(True, history=0))


def combined(after_the_plate):
    """The mean over rows of values that are all given at once."""

    def model(p, x):
        with pyro.plate("data", len(x)):
            y = binary("y", p.b)
            observe("x", p.w * (y if after_the_plate else y.mean(-1, keepdim=True)) + p.c, x)
        if after_the_plate:
            observe("total", p.w * y.mean(), x[0])

    def guide(p, x):
        with pyro.plate("data", len(x)):
            binary("y", p.a * x + p.d, marked=True)

    return model, guide, START, X


small_program("a mean over the rows of an enumerated site", valid=False)(lambda: combined(False))
small_program("a mean of an enumerated site after its plate", valid=False)(lambda: combined(True))


small_program("a site marked for sequential enumeration")(lambda: local(enumerate="sequential"))
small_program("a site with infer num_samples")(lambda: local(num_samples=2))
small_program("an enumerated site with infer num_samples")(lambda: local(enumerate="parallel", num_samples=2))


@small_program("a normal site marked for enumeration")
def marked_normal():
    def model(p, x):
        with pyro.plate("data", len(x)):
            z = normal("z", p.b, 0.9)
            observe("x", p.w * z + p.c, x)

    def guide(p, x):
        with pyro.plate("data", len(x)):
            normal("z", p.a * x + p.d, p.t, infer={"enumerate": "parallel"})

    return model, guide, START, X
