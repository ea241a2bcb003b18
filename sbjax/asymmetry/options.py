"""Asymmetric networks from plain options: names, numbers and nested dicts, as a config holds them."""

import dataclasses
import functools
import operator
from collections.abc import Mapping
from typing import Any

from sbjax import asymmetry as asymmetry_lib
from sbjax.common import options
from sbjax.common.options import Condition, Spec, one_of

PRESETS = {
    "gnn_arxiv": asymmetry_lib.gnn_arxiv,
    "mlp_mnist": asymmetry_lib.mlp_mnist,
    "resnet8": asymmetry_lib.resnet8,
    "resnet20": asymmetry_lib.resnet20,
    "resnet20_8x": functools.partial(asymmetry_lib.resnet20, 8),
}
WRAPPED = ("w", "syre", "fixed_bias")  # kinds whose effective weights are not those that are trained

_OWN = {
    "preset": Spec(None, "a published choice of masks", choices=tuple(PRESETS), only={"kind": one_of("w")}),
    "masks": Spec(
        {},
        "frozen entries by glob, {'dense_0/kernel': {'n_fix': 64}}",
        only={"kind": one_of("w"), "preset": Condition(operator.not_, " left out")},
    ),
    "kappa_factor": Spec(1.0, "multiplies every kappa; 0 freezes zeros", least=0, only={"kind": one_of("w")}),
    "with_gate": Spec(
        None, "also FiGLU, F of this deviation: W + sigma", above=0, like=1.0, only={"kind": one_of("w")}
    ),
    "start_only": Spec(False, "train the standard network from this one's start", only={"kind": one_of(*WRAPPED)}),
}


def asymmetry_specs() -> dict[str, Spec]:
    """The options of `build_asymmetric`, by name.

    >>> asymmetry_specs()['kind'].choices
    ('standard', 'w', 'sigma', 'syre', 'fixed_bias')
    """
    return options.describe(asymmetry_lib.AsymmetrySpec) | _OWN


def build_asymmetric(module: Any, fields: Mapping[str, Any] | None) -> Any:
    """The module as options such as `{'kind': 'w', 'preset': 'mlp_mnist', 'mask_seed': 0}` make it; None leaves it.

    Options are the fields of `AsymmetrySpec`, and

    - preset: of kind 'w', a published choice of masks;
    - masks: of kind 'w', instead of a preset, {'dense_0/kernel': {'n_fix': 64, 'kappa': 1.0}}, see `MaskSpec`;
    - kappa_factor: multiplies every kappa; 0 freezes zeros;
    - with_gate: of kind w, FiGLU in place of the activation besides, with a matrix of this deviation (W + sigma);
    - start_only: train the standard network from the asymmetric one's effective weights.

    Raises:
        ValueError: an unknown option, kind or preset, or an impossible value. Every line begins with the option, as
            'asymmetry.kind'.
    """
    if not fields and (fields is None or isinstance(fields, Mapping)):
        return module
    specs = asymmetry_specs()
    if not isinstance(fields, Mapping):
        raise ValueError(f"asymmetry={fields!r} must be a section with fields, such as {', '.join(specs)}")
    if fields.get("preset") is not None:
        specs["kind"] = specs["kind"]._replace(default="w")
    values, problems = options.check(specs, fields, where="asymmetry")
    if problems:
        raise ValueError("\n".join(problems))
    own = {name: values.pop(name) for name in _OWN}
    if own["preset"] is not None:
        spec = PRESETS[own["preset"]](mask_seed=values["mask_seed"], init=values["init"])
    else:
        masks = tuple((glob, _mask(glob, mask)) for glob, mask in own["masks"].items())
        spec = asymmetry_lib.AsymmetrySpec(**values, masks=masks)
    if own["kappa_factor"] != 1:
        scaled = tuple(
            (glob, dataclasses.replace(mask, kappa=own["kappa_factor"] * mask.kappa)) for glob, mask in spec.masks
        )
        spec = dataclasses.replace(spec, masks=scaled)
    if own["with_gate"] is not None:
        gate = asymmetry_lib.AsymmetrySpec("sigma", gate_scale=own["with_gate"], mask_seed=spec.mask_seed)
        module = asymmetry_lib.make_asymmetric(module, gate)
    made = asymmetry_lib.make_asymmetric(module, spec)
    return asymmetry_lib.StartedFrom(made, module) if own["start_only"] else made


def _mask(glob: str, fields: Mapping[str, Any]) -> asymmetry_lib.MaskSpec:
    made, problems = options.read(asymmetry_lib.MaskSpec, fields, where=f"asymmetry.masks[{glob!r}]")
    if problems:
        raise ValueError("\n".join(problems))
    return made
