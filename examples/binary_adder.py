"""Teach a recurrent network to add two numbers bit by bit, as one does on paper.

The network reads one bit of each number per step, the least significant first, and writes the bit of the sum. Nobody
tells it about the carry: it has to keep it in its 16 hidden units. With σ the logistic function,

    h_t = σ(x_t V + h_{t-1} U + b_h)        x_t: two bits, h_t: 16 hidden units
    y_t = σ(h_t W + b_y)                    y_t: one bit of the sum
    E   = ½ Σ_t (y_t - d_t)²                d_t: the right bit

Run it with `python examples/binary_adder.py`: after some 5 000 sums nearly all answers are right, after 6 000 all.
Look at one addition with `minigrad render-graph examples/binary_adder.py:loss -o adder.svg`.
"""

import numpy as np

import minigrad as mg

BITS = 8
LARGEST = 2 ** (BITS - 1)  # both numbers are smaller, so that their sum has no more bits


class Adder(mg.nn.Module):
    """One step of the network: two bits and the hidden state in, one bit and the next hidden state out."""

    def __init__(self, hidden=16):
        super().__init__()
        self.V = mg.nn.Parameter(mg.zeros(2, hidden))
        self.U = mg.nn.Parameter(mg.zeros(hidden, hidden))
        self.b_h = mg.nn.Parameter(mg.zeros(hidden))
        self.W = mg.nn.Parameter(mg.zeros(hidden, 1))
        self.b_y = mg.nn.Parameter(mg.zeros(1))
        for matrix in (self.V, self.U, self.W):
            mg.nn.init.uniform_(matrix, -1, 1)

    def forward(self, x, h):
        """Return the bit and the next hidden state."""
        h = mg.sigmoid(x @ self.V + h @ self.U + self.b_h)
        y = mg.sigmoid(h @ self.W + self.b_y)
        return y, h


def bits(numbers):
    """Write N numbers as bits, the least significant first: an array (BITS, N)."""
    return (np.asarray(numbers) >> np.arange(BITS)[:, None]) & 1


def question(a, b):
    """Return what the network reads: a tensor (BITS, N, 2)."""
    return mg.tensor(np.stack([bits(a), bits(b)], axis=-1), dtype=mg.get_default_dtype())


def answer(a, b):
    """Return what the network should write: a tensor (BITS, N, 1)."""
    return mg.tensor(bits(np.asarray(a) + b)[:, :, None], dtype=mg.get_default_dtype())


def unroll(model, x, d, h):
    """Run the network over all bits; return the bits it wrote and the error of each step."""
    written, errors = [], []
    for t in range(len(x)):
        with mg.scope(f"t={t}"):
            x_t, d_t = x[t], d[t]
            y, h = model(x_t, h)
            error = mg.losses.half_squared_error(y, d_t)
        for value, name in zip((x_t, d_t, h, y, error), "xdhyE", strict=True):
            value.name = f"{name}[{t}]"  # for pictures
        written.append(y)
        errors.append(error)
    return written, errors


def loss(a=105, b=58, model=None):
    """Return the error of one addition, summed over its steps: 105 + 58 carries four times."""
    if model is None:
        mg.manual_seed(0)
        model = Adder()
    _, errors = unroll(model, question([a], [b]), answer([a], [b]), mg.zeros(1, model.U.shape[0], name="h[-1]"))
    return mg.stack(*errors).sum()


def add(model, a, b):
    """Let the network add N pairs of numbers at once."""
    with mg.no_grad():
        written, _ = unroll(model, question(a, b), answer(a, b), mg.zeros(len(a), model.U.shape[0]))
    return sum((y.numpy()[:, 0] > 0.5).astype(int) << t for t, y in enumerate(written))


def train(n_sums=10_000, seed=0, rate=0.1, report=1_000):
    """Show the network one sum after the other, and take a step down the gradient after each; return the network."""
    mg.manual_seed(seed)
    numbers = np.random.default_rng(seed)
    model = Adder()
    optimizer = mg.optim.SGD(model.parameters(), lr=rate)
    recent = 0.0
    for k in range(1, n_sums + 1):
        a, b = numbers.integers(LARGEST, size=2)
        error = loss(a, b, model)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        recent += error.item()
        if report and k % report == 0:
            right = correct(model, seed + 1)
            print(f"{k:6d} sums   mean error {recent / report:.4f}   {right:.1%} of 500 fresh sums right")
            recent = 0.0
    return model


def correct(model, seed, pairs=500):
    """Return the share of fresh sums that the network gets right in every bit."""
    a, b = np.random.default_rng(seed).integers(LARGEST, size=(2, pairs))
    return (add(model, a, b) == a + b).mean()


if __name__ == "__main__":
    model = train()
    for a, b in ((105, 58), (64, 63), (99, 1)):
        print(f"{a} + {b} = {add(model, [a], [b])[0]}")
    assert correct(model, seed=12345) == 1.0, "the network does not add correctly yet: train it on more sums"
