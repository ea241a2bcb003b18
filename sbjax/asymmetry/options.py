"""From the config field `model.asymmetry` to an asymmetric network."""

import dataclasses
from typing import Any

from sbjax import asymmetry as asymmetry_lib
from sbjax.asymmetry import draws
from sbjax.names import near

PRESETS = {
    "mlp_mnist": asymmetry_lib.mlp_mnist,
    "resnet8": asymmetry_lib.resnet8,
    "resnet20": asymmetry_lib.resnet20,
    "resnet20_8x": lambda **options: asymmetry_lib.resnet20(8, **options),
}
OWN = ("preset", "kappa_factor", "masks", "start_only")
WRAPPED = ("w", "syre", "fixed_bias")  # kinds whose effective weights are not those that are trained
SPEC = tuple(field.name for field in dataclasses.fields(asymmetry_lib.AsymmetrySpec))
MASK = tuple(field.name for field in dataclasses.fields(asymmetry_lib.MaskSpec))


def build_asymmetric(module: Any, section: dict[str, Any] | None) -> Any:
    """The module as the section `{'kind': 'w', 'preset': 'mlp_mnist', 'mask_seed': 0}` makes it; None leaves it.

    Fields are those of `AsymmetrySpec`, and

    - preset: of kind 'w', a published choice of masks;
    - masks: of kind 'w', instead of a preset, {'dense_0/kernel': {'n_fix': 64, 'kappa': 1.0}}, see `MaskSpec`;
    - kappa_factor: multiplies every kappa; 0 freezes zeros;
    - start_only: train the standard network from the asymmetric one's effective weights.

    Raises:
        ValueError: an unknown field, kind or preset, or an impossible value.
    """
    if not section:
        return module
    fields = dict(section)
    known = (*SPEC, *OWN)
    for name in fields:
        if name not in known:
            raise ValueError(f"model.asymmetry.{name} is unknown{near(name, known)}; known: {', '.join(known)}")
    start_only, factor = fields.pop("start_only", False), fields.pop("kappa_factor", 1.0)
    preset, masks = fields.pop("preset", None), fields.pop("masks", None)
    try:
        draws.check_number("asymmetry.kappa_factor", factor)
        if preset is not None:
            if fields.get("kind", "w") != "w" or masks is not None:
                raise ValueError(f"asymmetry.preset={preset!r} is of kind 'w' and brings its own masks; leave them out")
            if others := sorted(fields.keys() - {"kind", "mask_seed", "init"}):
                raise ValueError(f"asymmetry.{others[0]} has no meaning with asymmetry.preset={preset!r}; leave it out")
            if preset not in PRESETS:
                raise ValueError(
                    f"asymmetry.preset={preset!r} is unknown{near(preset, PRESETS)}; known: {', '.join(PRESETS)}"
                )
            spec = PRESETS[preset](**{name: fields[name] for name in ("mask_seed", "init") if name in fields})
        else:
            pairs = tuple((glob, _mask(glob, mask)) for glob, mask in (masks or {}).items())
            spec = asymmetry_lib.AsymmetrySpec(**fields, **({"masks": pairs} if pairs else {}))
        if factor != 1:
            scaled = tuple((glob, dataclasses.replace(mask, kappa=factor * mask.kappa)) for glob, mask in spec.masks)
            spec = dataclasses.replace(spec, masks=scaled)
        for name, given, kinds in (("kappa_factor", factor != 1, ("w",)), ("start_only", start_only, WRAPPED)):
            if given and spec.kind not in kinds:
                raise ValueError(
                    f"asymmetry.{name} has no meaning with asymmetry.kind={spec.kind!r}, only with "
                    f"{', '.join(kinds)}; leave it out"
                )
        made = asymmetry_lib.make_asymmetric(module, spec)
    except (TypeError, ValueError) as error:
        raise ValueError(f"model.{error}") from error
    return asymmetry_lib.StartedFrom(made, module) if start_only else made


def _mask(glob: str, fields: dict[str, Any]) -> asymmetry_lib.MaskSpec:
    for name in fields:
        if name not in MASK:
            raise ValueError(f"asymmetry.masks[{glob!r}].{name} is unknown{near(name, MASK)}; known: {', '.join(MASK)}")
    return asymmetry_lib.MaskSpec(**fields)
