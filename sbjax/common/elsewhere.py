"""Names of other programs that are no field of a config: options of a network, what a flag does, what there is not."""

from collections.abc import Iterable

from sbjax.common.names import SYNONYMS, likely, near

MODEL = ("activation", "depth", "dropout", "dtype", "norm", "stem", "width", "widths", "heads", "layers")
"""Options that some networks have, and that a config has only where its network has them."""

_MODEL_WORDS = {
    **dict.fromkeys(("act", "nonlinearity", "act_fn", "activation_fn", "hidden_act"), "activation"),
    **dict.fromkeys(("activation_function", "nonlin"), "activation"),
    **dict.fromkeys(("hidden", "hidden_layers", "units", "neurons", "hidden_sizes", "hidden_size"), "widths"),
    **dict.fromkeys(("hidden_dim", "hidden_dims", "hidden_channels", "layer_sizes", "n_hidden", "features"), "widths"),
    **dict.fromkeys(("drop", "drop_rate", "dropout_rate", "dropout_prob", "p_drop", "hidden_dropout"), "dropout"),
    **dict.fromkeys(("batch_norm", "batchnorm", "bn", "normalization", "norm_layer", "layer_norm"), "norm"),
    **dict.fromkeys(("num_layers", "n_layers", "blocks_per_stage"), "depth"),
    **dict.fromkeys(("num_heads", "n_heads", "nhead"), "heads"),
}  # fmt: skip

_OUTPUTS = "how many outputs a network has follows from the data, from its classes or unknowns"
_WORKDIR = "where files go is the flag --workdir"
_RESUME = "the same command with the same --workdir goes on where it stopped"
_LOG = "numbers go to metrics.jsonl in --workdir as often as `reports` says"
_STOP = "arms are compared after as many steps each, so none stops early; checkpoint.keep_best=1 keeps the best network"
_LOSS = "the loss follows from task.kind"
_DEVICES = "devices are those of JAX (JAX_PLATFORMS), and placement.devices says which; --cpu_devices of a CPU"
_ACCUMULATE = "gradients are not accumulated; task.batch_size is the size of a step"
_WORKERS = "data are in memory, or read by as many workers as task.stream_workers says, where task.stream=True"
_INIT = "each network has the start of its own kind; seed=.. draws another one"
_OTHER = {
    **dict.fromkeys(
        ("out", "outputs", "out_features", "output_dim", "out_dim", "num_classes", "n_classes", "out_channels"),
        _OUTPUTS,
    ),
    **dict.fromkeys(("in_features", "input_dim", "in_dim", "in_channels", "input_shape", "input_size"), _OUTPUTS),
    **dict.fromkeys(
        ("log_dir", "logdir", "output_dir", "out_dir", "save_dir", "default_root_dir", "run_dir", "ckpt_dir"), _WORKDIR
    ),
    **dict.fromkeys(("resume", "resume_from_checkpoint", "ckpt_path", "checkpoint_path", "load", "restore"), _RESUME),
    **dict.fromkeys(("verbose", "logger", "log", "wandb", "tensorboard", "progress_bar", "enable_progress_bar"), _LOG),
    **dict.fromkeys(("early_stopping", "patience", "min_delta", "monitor_metric", "early_stop"), _STOP),
    **dict.fromkeys(("criterion", "loss", "loss_fn", "objective"), _LOSS),
    **dict.fromkeys(("accelerator", "cuda", "use_gpu", "strategy", "platform", "num_nodes"), _DEVICES),
    **dict.fromkeys(("accumulate_grad_batches", "gradient_accumulation_steps", "grad_accum"), _ACCUMULATE),
    **dict.fromkeys(("num_workers", "workers", "prefetch", "pin_memory", "prefetch_factor"), _WORKERS),
    **dict.fromkeys(("kernel_initializer", "initializer", "init", "weight_init", "bias_initializer"), _INIT),
}


def hint(name: object, known: Iterable[str]) -> str:
    """What to write instead of a name that is not known: a likely field, what there is in its place, or a near one.

    Args:
        known: names, or paths such as 'task.batch_size'.

    >>> hint('lr', ['optimizer.learning_rate']), hint('trian', ['train'])
    (", did you mean 'optimizer.learning_rate'?", ", did you mean 'train'?")
    >>> hint('activation', ['calibration'])
    "; 'activation' is an option of some networks and goes into the file: config.model = {'name': .., 'activation': ..}"
    >>> hint('patience', ['precision']).split(':')[0]
    '; there is no such field'
    """
    known = list(map(str, known))
    text = str(name).lower().replace("-", "_")
    option = _MODEL_WORDS.get(text, SYNONYMS.get(text, text))
    if likely(name, known):
        return near(name, known)
    if own := likely(option, known):
        return f", did you mean {' or '.join(map(repr, own))}?"
    if option in MODEL:
        said = f"config.model = {{'name': .., {option!r}: ..}}"
        return f"; {option!r} is an option of some networks and goes into the file: {said}"
    if text in _OTHER:
        return f"; there is no such field: {_OTHER[text]}"
    return near(name, known)
