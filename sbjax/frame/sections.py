"""Fields of a configuration that differ between kinds of task, and those of an optimiser, with their defaults."""

from typing import Any

# The least value of whole numbers of `task`, where they occur.
LEAST = {
    "batch_size": 1,
    "eval_batch_size": 1,
    "crop_padding": 0,
    "image_size": 0,
    "points": 1,
    "boundary_points": 1,
    "initial_points": 1,
    "test_points": 1,
    "resample_every": 0,
    "balance_every": 1,
    "nodes": 1,
    "size": 2,
}

# Fields of the section `task`, by its kind.
TASKS: dict[str, dict[str, Any]] = {
    "images": {
        "kind": "images",
        "dataset": "digits",  # or a name of TFDS, folder:PATH, module:function, FILE.py:function
        "data_dir": "",  # where TFDS has its data; '' = $TFDS_DATA_DIR or ~/tensorflow_datasets
        "cache_dir": "",  # decoded images; '' = $SBJAX_CACHE or ~/.cache/sbjax
        "image_size": 0,  # resize to this size; 0 = as stored
        "eval_share": 1.0,  # share of validation and test splits that is evaluated, for quick looks
        "train_share": 1.0,  # share of the training split; a smaller share is part of a larger one
        "batch_size": 128,
        "crop_padding": 0,
        "flip": False,
        "label_smoothing": 0.0,
        "eval_batch_size": 500,
        "quarter_turns": False,  # turn every image by a fixed multiple of 90 degrees
    },
    "pinn": {
        "kind": "pinn",
        "equation": "burgers",  # a name of sbjax.physics.pdes, or module:function of a builder of yours
        "numbers": "",  # coefficients other than its own, 'nu=0.01'
        "points": 2000,  # collocation points of the equation
        "boundary_points": 200,  # of each condition on a face
        "initial_points": 200,  # of each condition at t = 0
        "sampler": "uniform",  # uniform, sobol, lhs, adaptive
        "resample_every": 0,  # steps between two draws of points; 0 = the same points all the time
        "weights": "",  # of terms of the loss other than 1, 'initial_u=10'
        "balance": "fixed",  # fixed, gradient_norm, self_adaptive
        "balance_every": 100,  # steps between two changes of gradient_norm
        "derivatives": "auto",  # auto, mlp, nested, forward_over_reverse, forward, taylor
        "hard": False,  # meet conditions by the equation's ansatz instead of by the loss
        "fold": False,  # start as the expanded network would, folded: the matched-bias control
        "test_points": 4096,
    },
    "equation_of_state": {
        "kind": "equation_of_state",
        "parametrisation": "hotqcd_2014",  # of lattice QCD: a name of sbjax.physics.lattice
        "lower": 0.155,  # GeV, the lowest temperature of the training
        "upper": 0.4,  # GeV, the highest
        "points": 50,  # temperatures, evenly spaced
        "loss": "chi2",  # chi2, l1
        "relative_error": 0.05,  # of entropy density and trace anomaly in chi2
        "mass_weight": 1.0,  # of the relations between the masses
        "nodes": 20,  # of the integrals over momenta in training
        "fold": False,  # start as the expanded network would, folded: the matched-bias control
    },
    "regression": {
        "kind": "regression",
        "function": "sine",  # a name of sbjax.tasks.regression.TARGETS
        "points": 256,  # evenly spaced, fitted all at once
        "test_points": 2000,
        "fold": False,  # start as the expanded network would, folded: the matched-bias control
        "program": "frame",  # frame: arm after arm, any optimiser; grid: all arms by L-BFGS in one program
        "tolerance": 1e-9,  # of 'grid': a fit ends where no entry of the gradient is larger
    },
    "landscape": {
        "kind": "landscape",
        "experiment": "two_layer",  # a module of sbjax.experiments.landscape.experiment, which has the other fields
    },
    "ising": {
        "kind": "ising",
        "size": 32,  # side of the periodic lattice; replicas are quenched for train_steps sweeps
        "temperature": 1.5,  # in units of the coupling
        "field": 0.0,
        "mean_field_temperature": 2.0,  # of the free energy in mean field, which is drawn beside
    },
}

OPTIMIZER: dict[str, Any] = {
    "name": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "b1": 0.9,
    "b2": 0.999,
    "weight_decay": 5e-4,
    "clip_norm": 0.0,
    "memory_size": 10,
    "precondition_every": 10,
    "schedule": "cosine",
    "warmup_share": 0.05,  # of the training steps
    "decay_every_steps": 0,
    "decay_factor": 0.1,
    # The first layer's bias is trained in coordinates this much smaller; 0, in an arm with task.fold: as the folded
    # expansion would move it.
    "first_bias_scale": 1.0,
}
