"""Networks by name: those of this package, and your own by import path."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn

from sbjax.common import options
from sbjax.common.names import check_choice, import_path, is_import_path
from sbjax.expansion.transform import Expansion, check_expansion
from sbjax.models.families import FAMILIES, OF_THE_TASK, Model
from sbjax.models.own import OwnField, OwnMasses, OwnModel, own_dtype


def model_specs(name: str, family: str = "image") -> dict[str, options.Spec]:
    """The options of a network, by name.

    Args:
        name: of the table `FAMILIES`, or an import path.
        family: 'image', 'text', 'graph', 'map', 'metanet', 'denoiser', 'field' or 'quasi_parton'.

    Raises:
        ValueError: an unknown name, with near ones.

    >>> list(model_specs('cnn'))
    ['channels', 'norm', 'dropout', 'activation', 'dtype']
    >>> model_specs('cnn')['dropout'].bounds
    '>= 0, < 1'
    """
    return _specs(_find(name, family), family)


def make_model(name: str, *, classes: int, **given: Any) -> Any:
    """An image classifier, called as `module.apply(variables, x, train=.., rngs={'dropout': key}, mutable=[..])`.

    Args:
        name: of `FAMILIES["image"]`, such as 'mlp', 'cnn', 'resnet18', 'resnet50', 'densenet121', 'mobilenet_v3_small',
            'efficientnet_b0'; or the import path of a Linen module of your own, or of a function that returns one
            ('my_models:Depthwise', 'path/my_models.py:Depthwise'). It takes `classes`; see
            `sbjax.models.own.OwnModel` for what its `__call__` has to do.
        classes: number of outputs.
        given: options, see `model_specs`: the other fields of the class or arguments of the function.

    Returns:
        A Linen module, or an `OwnModel` around the user's.

    Raises:
        ValueError: an unknown name or option (with near names), or an impossible value. Every line begins with the
            option's name.

    >>> make_model('cnn', classes=10, channels=(8, 8)).channels
    (8, 8)
    """
    module, own = _make(name, "image", {"classes": classes}, given)
    return OwnModel(module, classes) if own else module


def make_text_model(
    name: str, *, classes: int, vocabulary: int, expansion: Expansion | None = None, **given: Any
) -> Any:
    """A classifier of texts, called as `module.apply(variables, tokens, train=.., rngs={'dropout': key})`.

    Args:
        name: 'bag', 'textcnn', 'lstm', 'transformer', or the import path of a Linen module of your own, or of a
            function that returns one. It takes `classes` and, if it likes, `vocabulary`.
        classes: outputs.
        vocabulary: words that there are; 0 is padding.
        expansion: of the embeddings; a network of your own has to bring its own.
        given: options, see `model_specs`.

    Raises:
        ValueError: as `make_model`; an expansion with a network of your own.

    >>> make_text_model('bag', classes=2, vocabulary=100, width=8).width
    8
    """
    told = {"classes": classes, "vocabulary": vocabulary, "expansion": expansion}
    module, own = _make(name, "text", told, given)
    if own and expansion is not None:
        raise ValueError(
            f"name={name!r}: an expansion acts on embeddings inside of our own networks; build it into yours"
        )
    return module


def make_graph_model(name: str, *, classes: int, aggregated: bool = False, **given: Any) -> Any:
    """A classifier of nodes, called as `module.apply(variables, graph, train=.., rngs=.., mutable=[..])`.

    Args:
        name: 'graph', or the import path of a Linen module of your own, or of a function that returns one, which takes
            `classes`; see `sbjax.models.graph.Graph` for what it is called with.
        classes: outputs.
        aggregated: whether the features come aggregated already; a network of your own gets them as they are.
        given: options, see `model_specs`.

    Raises:
        ValueError: as `make_model`.

    >>> make_graph_model('graph', classes=40, widths=(256, 256, 256)).norm
    'batch'
    """
    return _make(name, "graph", {"classes": classes, "aggregated": aggregated}, given)[0]


def make_map_model(name: str, *, outputs: int, sites: Expansion | None = None, **given: Any) -> Any:
    """A network from images to maps, called as `module.apply(variables, x, train=.., mutable=[..])`.

    Args:
        name: 'unet', or the import path of a Linen module of your own, or of a function that returns one. It takes
            `outputs` and, if it likes, `sites`.
        outputs: channels of the map [batch, h, w, outputs].
        sites: an expansion of images whose data sites are all that is wanted of the map.
        given: options, see `model_specs`.

    Raises:
        ValueError: as `make_model`.

    >>> make_map_model('unet', outputs=2, width=8).depth
    4
    """
    return _make(name, "map", {"outputs": outputs, "sites": sites}, given)[0]


def make_metanet(name: str, *, outputs: int, reading: Any, **given: Any) -> Any:
    """A network that reads parameters of networks, called as `module.apply(variables, x, train=.., mutable=[..])`.

    Args:
        name: of `FAMILIES["metanet"]`, such as 'statistics', 'functional', 'neural_graph'; or the import path of a
            Linen module of your own, or of a function that returns one. It takes `outputs` and, if it likes, `reading`.
            Its class may say what it is called with: `inputs`, 'entries' (without it), 'statistics' or
            'hyperparameters'.
        outputs: numbers that are predicted.
        reading: of the networks, see `sbjax.metanets.reading.Reading`.
        given: options, see `model_specs`.

    Raises:
        ValueError: as `make_model`.

    >>> make_metanet('statistics', outputs=1, reading=None).widths
    (256, 256)
    """
    return _make(name, "metanet", {"outputs": outputs, "reading": reading}, given)[0]


def make_denoiser(name: str, *, reading: Any, **given: Any) -> Any:
    """A network that takes noise off parameters, called as `module.apply(variables, x, level, prompt)`.

    Args:
        name: 'flat_denoiser', 'equivariant_denoiser', or the import path of a Linen module of your own, or of a
            function that returns one. It takes `reading`.
        reading: of the networks, see `sbjax.metanets.reading.Reading`.
        given: options, see `model_specs`.

    Raises:
        ValueError: as `make_model`.

    >>> make_denoiser('flat_denoiser', reading=None).width
    256
    """
    return _make(name, "denoiser", {"reading": reading}, given)[0]


def make_field(
    name: str,
    *,
    unknowns: int,
    lower: Sequence[float],
    upper: Sequence[float],
    expansion: Expansion | None = None,
    x64: bool = False,
    **given: Any,
) -> Any:
    """A network that stands for a field: a smooth function of coordinates.

    Args:
        name: 'field', or the import path of a Linen module of your own, or of a function that returns one. It takes
            `unknowns` and, if it likes, `lower` and `upper`; see `sbjax.models.own.OwnField`.
        unknowns: outputs.
        lower, upper: bounds of the coordinates.
        expansion: constants around the coordinates.
        x64: whether jax is in double precision.
        given: options, see `model_specs`.

    Returns:
        A `Field`, or an `OwnField` around the user's.

    Raises:
        ValueError: as `make_model`; an expansion that does not fit the coordinates.

    >>> make_field('field', unknowns=1, lower=(0.,), upper=(1.,), widths=(32, 32)).activation
    'tanh'
    """
    box = {"unknowns": unknowns, "lower": lower, "upper": upper}
    field, own = _make(name, "field", {**box, "expansion": expansion}, given)
    check_expansion(expansion, (len(lower),), dtype="float32")
    if own:
        return OwnField(field, **box, expansion=expansion, dtype=own_dtype(field, x64=x64))
    return _check_x64(field, x64)


def make_quasi_partons(name: str, *, expansion: Expansion | None = None, x64: bool = False, **given: Any) -> Any:
    """A network that gives the masses of quasi-partons as functions of the temperature.

    Args:
        name: 'quasi_parton', or the import path of a Linen module of your own, or of a function that returns one, for 3
            `unknowns`; see `sbjax.models.own.OwnMasses`.
        expansion: constants around the temperature.
        x64: whether jax is in double precision.
        given: options, see `model_specs`.

    Raises:
        ValueError: as `make_field`.

    >>> import jax, jax.numpy as jnp
    >>> masses = make_quasi_partons('quasi_parton', blocks=1)
    >>> shapes, variables = jax.eval_shape(lambda: masses.init_with_output(jax.random.key(0), jnp.ones(4)))
    >>> shapes.shape, variables['params']['dense_0']['kernel'].shape
    ((4, 3), (3, 1, 16))
    """
    network, own = _make(name, "quasi_parton", {"unknowns": 3, "expansion": expansion}, given)
    check_expansion(expansion, (1,), dtype="float32")
    if own:
        return OwnMasses(network, 3, (0.0,), (1.0,), expansion, own_dtype(network, x64=x64))
    return _check_x64(network, x64)


def _make(name: str, family: str, told: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[nn.Module, bool]:
    """The module, and whether it is the user's own.

    `told` is what the task says, which a module of the user's own need not all take, but its number of outputs.
    """
    model, own = _find(name, family), is_import_path(name)
    part = import_path(model.path)
    specs, anything = _specs(model, family), options.open_ended(part)
    if anything:
        specs = {**{option: options.Spec() for option in given}, **specs}
    values, problems = options.check(specs, given, where="")
    if problems:
        raise ValueError("\n".join(problems))
    takes, outputs = options.describe(part), next(iter(told))
    if own and outputs not in takes and not anything:
        what = {"reading": "how networks are read"}.get(outputs, "the number of its outputs")
        raise ValueError(f"name={name!r} takes no {outputs!r}, {what}; add that field or argument")
    told = {field: value for field, value in told.items() if field in takes or (anything and field == outputs)}
    if not own:
        return part(**told, **model.fixed, **values), False
    told.pop("expansion", None)
    try:
        module = part(**told, **values)
    except Exception as error:  # the user's own code may raise anything
        raise ValueError(f"name={name!r}: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"name={name!r} gives {module!r}, which is no Linen module (flax.linen.Module)")
    return module, True


def _find(name: Any, family: str) -> Model:
    """The entry of a name; of an import path one that says nothing more."""
    check_choice(family, FAMILIES, what="family")
    if is_import_path(name):
        try:
            import_path(name)
        except ValueError as error:
            raise ValueError(f"name={name!r}: {error}") from error
        return Model(name)
    known = FAMILIES[family]
    if not isinstance(name, str):
        raise ValueError(f"name={name!r} must be text; known: {', '.join(known)}")
    other = next((other for other, models in FAMILIES.items() if name in models), None)
    if name not in known and other:
        raise ValueError(f"name={name!r} is a network of the family {other!r}, not {family!r}; use {', '.join(known)}")
    check_choice(name, known, what="name")
    return known[name]


def _specs(model: Model, family: str) -> dict[str, options.Spec]:
    specs = options.describe(import_path(model.path), without=(*OF_THE_TASK[family], *model.fixed))
    return {name: spec._replace(default=model.defaults.get(name, spec.default)) for name, spec in specs.items()}


def _check_x64(module: Any, x64: bool) -> Any:
    if module.dtype == "float64" and not x64:
        raise ValueError("dtype='float64' needs double precision, x64=True")
    return module
