"""Values that look like nonsense and are not, each with its reason; of all others an error is expected."""

from fnmatch import fnmatchcase

from tests.robustness.case import Expected

#: A generated case's name, as a pattern in which [ is itself: why its value is taken, or may be.
MEANT: dict[str, str] = {
    "*--*=1e308": "a finite number; where it is too large for what it does, the loss that is not finite says so",
    "*--*seed=0": "a seed",
    "*--*seed=99999999999999999999": "where seeds are hashed, any whole number from 0 is one",
    "*--*.num_workers=0": "images are loaded in the training process",
    "*--*.fold=0": "the first fold",
    "*--*.shard=0": "the first shard",
    "*--*.warmup_steps=0": "no warm-up",
    "*--*.total_steps=99999999999999999999": "a schedule may be longer than the training",
    "*--data.batch_size=99999999999999999999": "a batch larger than the set is the set",
    "*--data.*_cache=": "no cache",
    "*--data.*_cache=missing/folder": "the cache is made",
    "*--data.*_cache=<300 letters>": "refused by most file systems, not by all",
    "*--out=missing/folder": "the folder is made",
    "*--trainer.max_epochs=*": "-1 is Lightning's word for no limit; 1 step is the limit here",
    "*--trainer.min_epochs=*": "a floor below what is trained anyway; max_steps comes first",
    "*--trainer.m??_steps=-1": "Lightning's word for no limit",
    "*--trainer.min_steps=*": "as min_epochs",
    "*--trainer.max_steps=99999999999999999999": "no limit to speak of",
    "*--trainer.limit_*_batches=0": "Lightning leaves that stage out",
    "*--trainer.limit_*_batches=99999999999999999999": "all batches",
    "*--trainer.num_sanity_val_steps=0": "none",
    "*--trainer.num_sanity_val_steps=-1": "Lightning's word for all",
    "*--trainer.num_sanity_val_steps=99999999999999999999": "all",
    "*--trainer.log_every_n_steps=0": "Lightning's word for never",
    "*--trainer.log_every_n_steps=99999999999999999999": "never, in effect",
    "*--trainer.reload_dataloaders_every_n_epochs=0": "Lightning's word for never",
    "*--trainer.reload_dataloaders_every_n_epochs=99999999999999999999": "never, in effect",
    "*--trainer.check_val_every_n_epoch=99999999999999999999": "never, in effect",
    "*--trainer.accumulate_grad_batches=99999999999999999999": "the epoch's end makes a step",
    "*--trainer.fast_dev_run=0": "off",
    "*--trainer.overfit_batches=0": "off",
    "*--trainer.gradient_clip_val=0": "off",
    "*--trainer.model_registry=*": "a word for a service that is not used",
    "*--model.sampling.negative_prompt=*": "any text is a prompt",
    "*--data.*prompt=*": "any text is a prompt",
    "*--data.token=*": "any text is a token",
    "*--trainer.callbacks.prompts=*": "any text is a prompt",
    "*--trainer.callbacks.columns=99999999999999999999": "one row",
    "*--trainer.callbacks.every_n_steps=99999999999999999999": "never, in effect",
    "*--trainer.callbacks.grid_images=99999999999999999999": "all images",
    "*--processes=99999999999999999999": "no more processes start than there are images",
    "*--columns.*=aNULb": "columns are read from a CSV; class folders have none",
    "*--name=*": "any text names a source",
    "*--license=*": "any text",
    "*--attribution=*": "any text",
}


def expected(name: str) -> Expected:
    """What should come of a generated case."""
    return "either" if any(fnmatchcase(name, pattern.replace("[", "[[]")) for pattern in MEANT) else "refused"
