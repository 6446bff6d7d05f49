"""A linear-Gaussian state space model with its exact guide, the Kalman filter, and the dense joint normal."""

import torch
from pyro import distributions as dist

import pyro_vae as pv

FEATURES, Q, R = 3, 0.6, 0.8


class Linear(pv.Conditional):
    """Normal with a mean that is linear in what is given (the first in `weight`, inputs in `control`), or constant."""

    def __init__(self, weight, scale, bias=None, control=None):
        super().__init__()
        self.weight, self.scale = torch.nn.Parameter(weight), scale
        self.bias = torch.nn.Parameter(torch.zeros(len(weight)).double() if bias is None else bias)
        self.control = control

    def forward(self, *given):
        mean = self.bias + 0 * self.weight.sum()
        if self.control is not None:
            *given, inputs = given
            mean = mean + inputs @ self.control.T
        mean = mean + given[0] @ self.weight.T if given else mean
        return dist.Normal(mean, self.scale).to_event(1)


class Messages(torch.nn.Module):
    """p(x_t, ..., x_L given z_t) as precision and shift of a normal in z_t: the information filter, backwards.

    Missing entries (NaN) are left out. The effect of the inputs on z_t is added to the shift.
    """

    takes_missing = True

    def __init__(self, a, c, b, d):
        super().__init__()
        self.a, self.c, self.b, self.d = a, c, b, d

    def forward(self, x, lengths, *inputs):
        n, steps, _ = x.shape
        latent, eye = len(self.a), torch.eye(len(self.a)).double()
        pushed, seen = (
            sum((u[:, :steps] @ w.T for u in inputs), x.new_zeros(n, steps, len(w))) for w in (self.b, self.d)
        )
        precision, shift, after = x.new_zeros(n, latent, latent), x.new_zeros(n, latent), x.new_zeros(n, latent)
        h = []
        for t in reversed(range(steps)):
            gain = (eye / Q**2 + precision).inverse()
            c = self.c * ~x[:, t].isnan().unsqueeze(-1)
            whole = eye / Q**2 - gain / Q**4
            back = ((gain @ shift.unsqueeze(-1)) / Q**2 - whole @ after.unsqueeze(-1)).squeeze(-1) @ self.a
            precision = self.a.T @ whole @ self.a + c.mT @ c / R**2
            shift = back + ((x[:, t] - seen[:, t]).nan_to_num().unsqueeze(1) @ c).squeeze(1) / R**2
            here = (t < lengths).double().unsqueeze(-1)
            precision, shift, after = precision * here.unsqueeze(-1), shift * here, pushed[:, t]
            h.insert(0, torch.cat([shift + after / Q**2, precision.flatten(1)], -1))
        return torch.stack(h, 1)


class Exact(pv.Conditional):
    """q(z_t given z_(t-1), x_t, ..., x_L), with the mean shifted by `off`."""

    def __init__(self, a, off=0.0):
        super().__init__()
        self.a, self.off = a, torch.nn.Parameter(torch.tensor(off).double())

    def forward(self, h, z):
        d = len(self.a)
        precision = torch.eye(d).double() / Q**2 + h[..., d:].reshape(*h.shape[:-1], d, d)
        right = z @ self.a.T / Q**2 + h[..., :d]
        mean = torch.linalg.solve(precision, right.unsqueeze(-1)).squeeze(-1)
        return dist.MultivariateNormal(mean + self.off, precision_matrix=precision)


class Toy:
    """z_t = A z_(t-1) + B u_t + noise of scale Q, x_t = C z_t + D u_t + noise of scale R.

    z_1 is as if z_0 were known.
    """

    def __init__(self, latent=2, off=0.0, missing=False, inputs=0):
        g = torch.Generator().manual_seed(3)
        normal = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
        self.a, self.c, start = 0.7 * normal(latent, latent), normal(FEATURES, latent), normal(latent)
        self.b, self.d, self.first = normal(latent, inputs), normal(FEATURES, inputs), self.a @ start
        b, d = (self.b, self.d) if inputs else (None, None)
        self.program = pv.programs.SequenceVAE(
            prior=Linear(torch.zeros(latent, 1).double(), Q, self.first, control=b),
            transition=Linear(self.a, Q, control=b),
            likelihood=Linear(self.c, R, control=d),
            posterior=Exact(self.a, off),
            summary=Messages(self.a, self.c, self.b, self.d),
            missing=missing,
            inputs=inputs,
        ).double()
        with torch.no_grad():
            self.program.start[0].copy_(start)

    def effects(self, steps, inputs):
        """Effects of the inputs of one sequence on latents and on data."""
        inputs = torch.zeros(steps, self.b.shape[1]).double() if inputs is None else inputs
        return inputs @ self.b.T, inputs @ self.d.T

    def kalman(self, x, inputs=None):
        """Exact log p of one sequence, and mean and covariance of its last latents, given its observed entries."""
        eye = torch.eye(len(self.a)).double()
        pushed, shown = self.effects(len(x), inputs)
        mean, covariance, total = self.first + pushed[0], Q**2 * eye, torch.zeros(()).double()
        for t, row in enumerate(x):
            if t:
                mean, covariance = self.a @ mean + pushed[t], self.a @ covariance @ self.a.T + Q**2 * eye
            row, c = (row - shown[t])[~row.isnan()], self.c[~row.isnan()]
            if not len(row):
                continue
            seen = c @ covariance @ c.T + R**2 * torch.eye(len(row)).double()
            total = total + dist.MultivariateNormal(c @ mean, seen).log_prob(row)
            gain = covariance @ c.T @ seen.inverse()
            mean, covariance = mean + gain @ (row - c @ mean), covariance - gain @ c @ covariance
        return total, mean, covariance

    def ahead(self, x, num_steps, inputs=None):
        """Exact means and covariances of x in each of the steps after the end of a sequence."""
        _, mean, covariance = self.kalman(x, None if inputs is None else inputs[: len(x)])
        pushed, shown = self.effects(len(x) + num_steps, inputs)
        means, covariances = [], []
        for t in range(len(x), len(x) + num_steps):
            mean = self.a @ mean + pushed[t]
            covariance = self.a @ covariance @ self.a.T + Q**2 * torch.eye(len(mean)).double()
            means.append(self.c @ mean + shown[t])
            covariances.append(self.c @ covariance @ self.c.T + R**2 * torch.eye(FEATURES).double())
        return torch.stack(means).detach(), torch.stack(covariances).detach()

    def dense(self, x, inputs=None):
        """Exact log p of one sequence, and the means of its latents, from the joint normal of all latents and data."""
        steps, latent = len(x), len(self.a)
        pushed, shown = self.effects(steps, inputs)
        # latents are the solution of (I - shifted A) z = (first, 0, ...) + B u + noise
        lower = torch.eye(steps * latent).double()
        for t in range(1, steps):
            lower[t * latent : (t + 1) * latent, (t - 1) * latent : t * latent] = -self.a
        right = pushed.clone()
        right[0] += self.first
        mean, covariance = torch.linalg.solve(lower, right.flatten()), Q**2 * (lower.T @ lower).inverse()
        seen = ~x.flatten().isnan()
        c = torch.block_diag(*[self.c] * steps)[seen]
        marginal = c @ covariance @ c.T + R**2 * torch.eye(int(seen.sum())).double()
        error = (x - shown).flatten()[seen] - c @ mean
        evidence = dist.MultivariateNormal(torch.zeros_like(error), marginal).log_prob(error)
        smoothed = mean + covariance @ c.T @ torch.linalg.solve(marginal, error)
        return evidence.detach(), smoothed.reshape(steps, latent).detach()

    def evidence(self, x, lengths, inputs=None):
        """Exact log p of each sequence."""
        inputs = [None] * len(x) if inputs is None else inputs
        rows = zip(x, lengths, inputs, strict=True)
        return torch.stack([self.kalman(row[:n], None if u is None else u[:n])[0] for row, n, u in rows]).detach()


def padded(x, lengths, value):
    """Return sequences with this value after the end."""
    return torch.where(torch.arange(x.shape[1])[:, None] < lengths[:, None, None], x, torch.tensor(value).to(x))
