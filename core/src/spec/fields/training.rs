//! The fields of what is learnt, and how.

use super::super::field::{BELOW_ONE, Field, Kind, UP_TO_ONE, above, at_least};
use super::{PLENTY, SIZE};

/// `labels`.
pub(in crate::spec) mod labels {
    use super::*;

    pub(in crate::spec) static COLUMN: Field =
        Field::new("column", Kind::Text, "label", "the column with the class").default("label");
    pub(in crate::spec) static CLASSES: Field = Field::new(
        "classes",
        Kind::Other("a whole number from 2 to 1000000, or a list of 2 names or more"),
        "10",
        "how many classes, for labels 0, 1, ...; or their names",
    );
    pub(in crate::spec) const MOST_CLASSES: u64 = 1_000_000;
}

/// `head`.
pub(in crate::spec) mod head {
    use super::*;

    pub(in crate::spec) static WIDTH: Field =
        Field::new("width", Kind::Whole(1, 16_384), "128", "s, the width that every encoder ends in")
            .default("128")
            .unit("units");
    pub(in crate::spec) static PROJECTION: Field =
        Field::new("projection", Kind::Section, "{kind: rls}", "what corrects the head's gradient");
    pub(in crate::spec) static OPTIMIZER: Field =
        Field::new("optimizer", Kind::Section, "{kind: sgd, lr: 0.05}", "the head's optimizer");
    pub(in crate::spec) static KIND: Field = Field::new(
        "kind",
        Kind::OneOf(&["off", "rls", "window"]),
        "rls",
        "`rls` folds in every turn (the paper), `window` the last turns of the other modalities",
    )
    .default("rls");
    pub(in crate::spec) static ALPHA: Field = Field::new(
        "alpha",
        Kind::Other("a number above 0, or `decay`"),
        "decay",
        "the regulariser; `decay` goes from 0.1 to 0.01 within each epoch",
    )
    .default("decay");
    pub(in crate::spec) static RESET: Field =
        Field::new("reset", Kind::OneOf(&["never", "epoch"]), "never", "when the projector starts anew")
            .default("never");
    pub(in crate::spec) static APPLY_TO: Field = Field::new(
        "apply_to",
        Kind::OneOf(&["gradient", "update"]),
        "gradient",
        "what is projected: the gradient before the optimizer, or the step after it",
    )
    .default("gradient");
    pub(in crate::spec) static WINDOW_ALPHA: Field =
        Field::new("alpha", above(0.0), "0.1", "the regulariser").default("0.1");
    pub(in crate::spec) static TURNS: Field =
        Field::new("turns", Kind::Whole(1, SIZE), "16", "K, turns that are remembered").default("16").unit("turns");
}

/// `optimizer`.
pub(in crate::spec) mod optimizer {
    use super::*;

    pub(in crate::spec) static KIND: Field =
        Field::new("kind", Kind::OneOf(&["sgd", "adamw"]), "adamw", "the rule").default("sgd");
    pub(in crate::spec) static LR: Field = Field::new("lr", above(0.0), "0.05", "learning rate").default("1e-3");
    pub(in crate::spec) static MOMENTUM: Field = Field::new("momentum", BELOW_ONE, "0.9", "of SGD").default("0.9");
    pub(in crate::spec) static WEIGHT_DECAY: Field =
        Field::new("weight_decay", at_least(0.0), "1e-4", "pull towards 0").default("1e-4");
    pub(in crate::spec) static ADAMW_WEIGHT_DECAY: Field =
        Field::new("weight_decay", at_least(0.0), "0.01", "pull towards 0, apart from the gradient").default("0.01");
    pub(in crate::spec) static BETA1: Field =
        Field::new("beta1", BELOW_ONE, "0.9", "memory of the gradient's mean").default("0.9");
    pub(in crate::spec) static BETA2: Field =
        Field::new("beta2", BELOW_ONE, "0.999", "memory of the gradient's square").default("0.999");
    pub(in crate::spec) static EPS: Field =
        Field::new("eps", above(0.0), "1e-8", "keeps the division finite").default("1e-8");
    pub(in crate::spec) static CLIP: Field =
        Field::new("clip", above(0.0), "5.0", "largest norm of the whole gradient; without one nothing is clipped")
            .default("null");
    pub(in crate::spec) static SCHEDULE: Field =
        Field::new("schedule", Kind::Section, "{kind: cosine}", "how the learning rate changes over the job");
    pub(in crate::spec) static SCHEDULE_KIND: Field =
        Field::new("kind", Kind::OneOf(&["constant", "step", "cosine"]), "cosine", "its course").default("constant");
    pub(in crate::spec) static WARMUP: Field =
        Field::new("warmup", at_least(0.0), "1", "the rate rises linearly from 0 over so long")
            .default("0")
            .unit("epochs");
    pub(in crate::spec) static AT: Field = Field::new(
        "at",
        Kind::Other("a list of numbers above 0, ascending"),
        "[70]",
        "when the rate is multiplied by `factor`",
    )
    .unit("epochs");
    pub(in crate::spec) static FACTOR: Field =
        Field::new("factor", above(0.0), "0.1", "what the rate is multiplied by").default("0.1");
    pub(in crate::spec) static FLOOR: Field =
        Field::new("floor", UP_TO_ONE, "0.01", "share of the rate that is left at the end").default("0");
}

/// The top-level `schedule`.
pub(in crate::spec) mod schedule {
    use super::*;

    pub(in crate::spec) static EPOCHS: Field =
        Field::new("epochs", Kind::Whole(1, PLENTY), "15", "training ends after so many").default("10").unit("epochs");
    pub(in crate::spec) static TURNS: Field = Field::new(
        "turns",
        Kind::Whole(0, u64::MAX),
        "300",
        "training ends after so many, in place of `epochs`; 0 writes the initial state",
    )
    .unit("turns");
    pub(in crate::spec) static ORDER: Field = Field::new(
        "order",
        Kind::Other("`cyclic`, `weak-first` or turns per cycle, as {audio: 2}"),
        "cyclic",
        "whose turn it is: in the order of the job, highest loss first, or so many turns each (1 if not named)",
    )
    .default("cyclic");
    pub(in crate::spec) static MODE: Field = Field::new(
        "mode",
        Kind::OneOf(&["pipelined", "sequential"]),
        "sequential",
        "all encoders compute at once, or one modality after the other to compare with; results are the same",
    )
    .default("pipelined");
    pub(in crate::spec) static ORDER_TURNS: Kind = Kind::Whole(1, 1_000_000);
    pub(in crate::spec) static BATCH: Field =
        Field::new("batch", Kind::Whole(1, 1_000_000), "64", "B, samples per step").default("64").unit("samples");
    pub(in crate::spec) static TURN_BATCHES: Field =
        Field::new("turn_batches", Kind::Whole(1, 1_000_000), "1", "k, steps per turn").default("1").unit("steps");
    pub(in crate::spec) static MICRO_SHARDS: Field = Field::new(
        "micro_shards",
        Kind::Whole(1, 1024),
        "1",
        "pieces that a batch is cut into, whatever the number of workers; results depend on it",
    )
    .default("1")
    .unit("pieces");
    pub(in crate::spec) static LEASE_TTL: Field = Field::new(
        "lease_ttl",
        Kind::Seconds,
        "30 s",
        "a worker that gives no sign of life for so long loses its place to the next free one",
    )
    .default("15 s")
    .unit("s");
    pub(in crate::spec) static TURN_DEADLINE: Field = Field::new(
        "turn_deadline",
        Kind::Seconds,
        "600 s",
        "so does one that has something to do, and gets nothing done for so long",
    )
    .default("300 s")
    .unit("s");
}

/// `checkpoints` and `evaluation`.
pub(in crate::spec) mod keeping {
    use super::*;

    pub(in crate::spec) static TO: Field =
        Field::new("to", Kind::Text, "s3://runs", "folder or URL of the store; by default the run's own folder")
            .default("null");
    pub(in crate::spec) static EVERY: Field =
        Field::new("every", Kind::Period, "1 epoch", "how often").default("1 epoch");
    pub(in crate::spec) static KEEP: Field =
        Field::new("keep", Kind::Whole(1, PLENTY), "3", "how many of the newest are kept, beside the best")
            .default("3")
            .unit("checkpoints");
    pub(in crate::spec) static CHUNK: Field =
        Field::new("chunk", Kind::Whole(1, SIZE), "256", "samples per message of logits")
            .default("256")
            .unit("samples");
}
