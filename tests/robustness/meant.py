"""Values that look like nonsense and are not, each with its reason; of all others an error is expected."""

from fnmatch import fnmatchcase

from tests.robustness.case import Expected

#: A flag with its value, as a pattern in which [ is itself: why it is taken, or may be.
MEANT: dict[str, str] = {
    "--*seed=0": "a seed",
    "--*.num_workers=0": "images are loaded in the training process",
    "--*.fold=0": "the first fold",
    "--*.shard=0": "the first shard",
    "--*.warmup_steps=0": "no warm-up",
    "--data.*_cache=missing/folder": "the cache is made",
    "--data.*_cache=<300 letters>": "refused by most file systems, not by all",
    "--out=missing/folder": "the folder is made",
    "--trainer.max_epochs=-1": "Lightning's word for no limit",
    "--trainer.max_steps=-1": "the same; an epoch is the limit here",
    "--trainer.min_epochs=-1": "a floor below what is trained anyway",
    "--trainer.min_epochs=0": "the same",
    "--trainer.min_steps=-1": "the same",
    "--trainer.min_steps=0": "the same",
    "--trainer.num_sanity_val_steps=0": "none",
    "--trainer.num_sanity_val_steps=-1": "Lightning's word for all",
    "--trainer.log_every_n_steps=0": "Lightning's word for never",
    "--trainer.reload_dataloaders_every_n_epochs=0": "Lightning's word for never",
    "--trainer.callbacks.redraws=0": "images that show nothing are kept",
    "--trainer.model_registry=*": "a word for a service that is not used",
    "--model.sampling.negative_prompt=*": "any text is a prompt",
    "--data.*prompt=*": "any text is a prompt",
    "--data.token=*": "any text is a token",
    "--trainer.callbacks.prompts=*": "any text is a prompt",
    "--columns.*=aNULb": "columns are read from a CSV; class folders have none",
    "--name=*": "any text names a source",
    "--license=*": "any text",
    "--attribution=*": "any text",
}


def expected(flag: str) -> Expected:
    """What should come of a flag with its value, of those that are generated."""
    return "either" if any(fnmatchcase(flag, pattern.replace("[", "[[]")) for pattern in MEANT) else "refused"
