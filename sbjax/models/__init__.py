# TEMPORARY stub, to be replaced whole by the real make_model.
import flax.linen as nn

from sbjax.suggest import near


class MLP(nn.Module):
    classes: int
    widths: tuple = (128, 128)

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(len(x), -1)
        for i, w in enumerate(self.widths):
            x = nn.relu(nn.Dense(w, name=f"dense_{i}")(x))
        return nn.Dense(self.classes, name=f"dense_{len(self.widths)}")(x)


def make_model(name, *, classes, norm="none", dropout=0.0, activation="relu", dtype="float32", **options):
    if name != "mlp":
        raise ValueError(f"model.name={name!r} is unknown{near(name, ['mlp', 'cnn'])}")
    if norm not in ("none", "batch"):
        raise ValueError(f"model.norm={norm!r} is unknown{near(norm, ['none', 'batch'])}")
    return MLP(classes, **options)
