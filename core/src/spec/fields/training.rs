//! The fields of labels, head, optimizers and schedule.

use super::super::field::{BELOW_ONE, Field, Kind, UP_TO_ONE, above, at_least};
use super::{PLENTY, SIZE};

/// `labels`.
pub(in crate::spec) mod labels {
    use super::*;

    pub(in crate::spec) static COLUMN: Field =
        Field::new("column", Kind::Text, "label", "the column that holds the class").default("label");
    pub(in crate::spec) static CLASSES: Field = Field::new(
        "classes",
        Kind::Other("a whole number from 2 to 1000000, or a list of at least 2 names"),
        "10",
        "the number of classes, if labels are 0, 1, ...; otherwise the list of their names",
    );
    pub(in crate::spec) const MOST_CLASSES: u64 = 1_000_000;
}

/// `head`.
pub(in crate::spec) mod head {
    use super::*;

    pub(in crate::spec) static WIDTH: Field = Field::new(
        "width",
        Kind::Whole(1, 16_384),
        "128",
        "the length s of the feature vectors that encoders give to the head",
    )
    .default("128")
    .unit("units");
    pub(in crate::spec) static PROJECTION: Field = Field::new(
        "projection",
        Kind::Section,
        "{kind: rls}",
        "the projection that keeps one modality's update from undoing what the others have learned",
    );
    pub(in crate::spec) static OPTIMIZER: Field =
        Field::new("optimizer", Kind::Section, "{kind: sgd, lr: 0.05}", "the optimizer of the head");
    pub(in crate::spec) static KIND: Field = Field::new(
        "kind",
        Kind::OneOf(&["off", "rls", "window"]),
        "rls",
        "the kind of projection: `rls` uses every turn, as in the paper, `window` only the last turns of the other \
         modalities, `off` none",
    )
    .default("rls");
    pub(in crate::spec) static ALPHA: Field = Field::new(
        "alpha",
        Kind::Other("a number above 0, or `decay`"),
        "decay",
        "the regularisation of the projection; `decay` lowers it from 0.1 to 0.01 in each epoch",
    )
    .default("decay");
    pub(in crate::spec) static RESET: Field = Field::new(
        "reset",
        Kind::OneOf(&["never", "epoch"]),
        "never",
        "when the projector is reset to the identity: `never`, or at the start of every `epoch`",
    )
    .default("never");
    pub(in crate::spec) static APPLY_TO: Field = Field::new(
        "apply_to",
        Kind::OneOf(&["gradient", "update"]),
        "gradient",
        "what is projected: `gradient`, before the optimizer, or `update`, the optimizer's step",
    )
    .default("gradient");
    pub(in crate::spec) static WINDOW_ALPHA: Field =
        Field::new("alpha", above(0.0), "0.1", "the regularisation of the projection").default("0.1");
    pub(in crate::spec) static TURNS: Field = Field::new(
        "turns",
        Kind::Whole(1, SIZE),
        "16",
        "the number K of past turns that the projection takes into account",
    )
    .default("16")
    .unit("turns");
}

/// `optimizer`.
pub(in crate::spec) mod optimizer {
    use super::*;

    pub(in crate::spec) static KIND: Field =
        Field::new("kind", Kind::OneOf(&["sgd", "adamw"]), "adamw", "the optimization algorithm").default("sgd");
    pub(in crate::spec) static LR: Field = Field::new("lr", above(0.0), "0.05", "the learning rate").default("1e-3");
    pub(in crate::spec) static MOMENTUM: Field =
        Field::new("momentum", BELOW_ONE, "0.9", "the momentum of SGD").default("0.9");
    pub(in crate::spec) static WEIGHT_DECAY: Field =
        Field::new("weight_decay", at_least(0.0), "1e-4", "the weight decay, added to the gradient").default("1e-4");
    pub(in crate::spec) static ADAMW_WEIGHT_DECAY: Field =
        Field::new("weight_decay", at_least(0.0), "0.01", "the weight decay, applied separately from the gradient")
            .default("0.01");
    pub(in crate::spec) static BETA1: Field =
        Field::new("beta1", BELOW_ONE, "0.9", "the decay rate of the running mean of the gradient").default("0.9");
    pub(in crate::spec) static BETA2: Field =
        Field::new("beta2", BELOW_ONE, "0.999", "the decay rate of the running mean of the squared gradient")
            .default("0.999");
    pub(in crate::spec) static EPS: Field =
        Field::new("eps", above(0.0), "1e-8", "a small number added to the denominator so that it is never 0")
            .default("1e-8");
    pub(in crate::spec) static CLIP: Field = Field::new(
        "clip",
        above(0.0),
        "5.0",
        "the norm to which larger gradients are scaled down; without it no gradient is clipped",
    )
    .default("null");
    pub(in crate::spec) static SCHEDULE: Field =
        Field::new("schedule", Kind::Section, "{kind: cosine}", "how the learning rate changes during the job");
    pub(in crate::spec) static SCHEDULE_KIND: Field =
        Field::new("kind", Kind::OneOf(&["constant", "step", "cosine"]), "cosine", "the shape of the schedule")
            .default("constant");
    pub(in crate::spec) static WARMUP: Field =
        Field::new("warmup", at_least(0.0), "1", "the time in which the learning rate rises linearly from 0")
            .default("0")
            .unit("epochs");
    pub(in crate::spec) static AT: Field = Field::new(
        "at",
        Kind::Other("an ascending list of numbers above 0"),
        "[70]",
        "the times at which the learning rate is multiplied by `factor`",
    )
    .unit("epochs");
    pub(in crate::spec) static FACTOR: Field =
        Field::new("factor", above(0.0), "0.1", "the factor by which the learning rate is multiplied").default("0.1");
    pub(in crate::spec) static FLOOR: Field =
        Field::new("floor", UP_TO_ONE, "0.01", "the learning rate at the end of the job, as a share of `lr`")
            .default("0");
}

/// The top-level `schedule`.
pub(in crate::spec) mod schedule {
    use super::*;

    pub(in crate::spec) static EPOCHS: Field =
        Field::new("epochs", Kind::Whole(1, PLENTY), "15", "the number of epochs after which training ends")
            .default("10")
            .unit("epochs");
    pub(in crate::spec) static TURNS: Field = Field::new(
        "turns",
        Kind::Whole(0, u64::MAX),
        "300",
        "the number of turns after which training ends, instead of `epochs`; with 0 the job only writes its initial \
         state",
    )
    .unit("turns");
    pub(in crate::spec) static ORDER: Field = Field::new(
        "order",
        Kind::Other("`cyclic`, `weak-first` or turns per cycle, such as {audio: 2}"),
        "cyclic",
        "the order of turns: `cyclic` for the order of `modalities`, `weak-first` for the highest loss first, or the \
         number of turns that each modality has in a cycle (1 if not named)",
    )
    .default("cyclic");
    pub(in crate::spec) static MODE: Field = Field::new(
        "mode",
        Kind::OneOf(&["pipelined", "sequential"]),
        "sequential",
        "`pipelined` lets all encoders compute at the same time, `sequential` one after the other, for comparison; \
         the results are the same",
    )
    .default("pipelined");
    pub(in crate::spec) static ORDER_TURNS: Kind = Kind::Whole(1, 1_000_000);
    pub(in crate::spec) static BATCH: Field =
        Field::new("batch", Kind::Whole(1, 1_000_000), "64", "the number B of samples in one step")
            .default("64")
            .unit("samples");
    pub(in crate::spec) static TURN_BATCHES: Field =
        Field::new("turn_batches", Kind::Whole(1, 1_000_000), "1", "the number k of steps in one turn")
            .default("1")
            .unit("steps");
    pub(in crate::spec) static MICRO_SHARDS: Field = Field::new(
        "micro_shards",
        Kind::Whole(1, 1024),
        "1",
        "the number of micro-shards into which a batch is divided, whatever the number of workers; results depend on \
         it",
    )
    .default("1")
    .unit("shards");
    pub(in crate::spec) static LEASE_TTL: Field = Field::new(
        "lease_ttl",
        Kind::Seconds,
        "30 s",
        "the time without a heartbeat after which a worker's lease expires and its slot is released to the next free \
         worker",
    )
    .default("15 s")
    .unit("s");
    pub(in crate::spec) static TURN_DEADLINE: Field = Field::new(
        "turn_deadline",
        Kind::Seconds,
        "600 s",
        "the time without progress after which the lease of a worker that has work to do expires",
    )
    .default("300 s")
    .unit("s");
}

/// `checkpoints` and `evaluation`.
pub(in crate::spec) mod keeping {
    use super::*;

    pub(in crate::spec) static TO: Field = Field::new(
        "to",
        Kind::Text,
        "s3://runs",
        "the folder or URL of the store that checkpoints are written to; by default the folder of the run",
    )
    .default("null");
    pub(in crate::spec) static EVERY: Field =
        Field::new("every", Kind::Period, "1 epoch", "how often; `end` means only at the end of the job")
            .default("1 epoch");
    pub(in crate::spec) static KEEP: Field = Field::new(
        "keep",
        Kind::Whole(1, PLENTY),
        "3",
        "the number of newest checkpoints that are retained; the best one is always retained",
    )
    .default("3")
    .unit("checkpoints");
    pub(in crate::spec) static CHUNK: Field = Field::new(
        "chunk",
        Kind::Whole(1, SIZE),
        "256",
        "the number of samples whose logits a worker sends in one message",
    )
    .default("256")
    .unit("samples");
}
