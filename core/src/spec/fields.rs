//! Every field of a job file, in one table per mapping.

use super::field::{BELOW_ONE, Field, Kind, UP_TO_ONE, above, at_least};

/// The largest number of rows, columns, tokens, ... that a size may be.
const SIZE: u64 = 65_536;
const PLENTY: u64 = u32::MAX as u64;

/// The key that a bare value in place of a mapping stands for: `encoder: cnn` is `encoder: {kind: cnn}`.
pub(super) fn short_key(path: &str) -> Option<&'static str> {
    if path == "schedule" {
        return None;
    }
    match path.rsplit('.').next().unwrap_or_default() {
        "encoder" | "input" | "optimizer" | "schedule" | "projection" => Some("kind"),
        "labels" => Some("classes"),
        _ => None,
    }
}

/// Keys of one mapping that exclude each other; an override of one takes the place of the other.
pub(super) const EXCLUSIVE: [(&str, &str); 1] = [("schedule.epochs", "schedule.turns")];

/// The whole file.
pub(super) mod job {
    use super::*;

    pub(in super::super) static NAME: Field =
        Field::new("name", Kind::Name, "spoken-digits", "what people call the job");
    pub(in super::super) static SEED: Field =
        Field::new("seed", Kind::Whole(0, u64::MAX), "7", "root of every random stream").default("0");
    pub(in super::super) static MODALITIES: Field = Field::new(
        "modalities",
        Kind::Other("a mapping from the name of each modality to its fields, or a list of names"),
        "{audio: {}, image: {}}",
        "the modalities; their order is that of a cyclic cycle",
    );
    pub(in super::super) static DATA: Field = Field::new(
        "data",
        Kind::Section,
        "{train: train.parquet}",
        "where samples come from",
    );
    pub(in super::super) static OPTIMIZER: Field = Field::new(
        "optimizer",
        Kind::Section,
        "{kind: sgd, lr: 0.05}",
        "the optimizer of every encoder",
    );
    pub(in super::super) static LABELS: Field = Field::new(
        "labels",
        Kind::Section,
        "{column: label, classes: 10}",
        "what is predicted",
    );
    pub(in super::super) static HEAD: Field = Field::new("head", Kind::Section, "{width: 128}", "the shared head");
    pub(in super::super) static SCHEDULE: Field = Field::new(
        "schedule",
        Kind::Section,
        "{epochs: 15}",
        "how long, and in which order",
    );
    pub(in super::super) static FUSION: Field = Field::new(
        "fusion",
        Kind::Other("`entropy`, `mean`, `tuned` or a weight for each modality, as {audio: 0.7, image: 0.3}"),
        "entropy",
        "the rule that the headline figures are given by; evaluations report every rule",
    )
    .default("entropy");
    pub(in super::super) static CHECKPOINTS: Field = Field::new(
        "checkpoints",
        Kind::Section,
        "{every: 1 epoch}",
        "where and when state is kept",
    );
    pub(in super::super) static EVALUATION: Field = Field::new(
        "evaluation",
        Kind::Section,
        "{every: 1 epoch}",
        "when the validation split is gone through",
    );
}

/// `modalities.<name>`.
pub(super) mod modality {
    use super::*;

    pub(in super::super) static INPUT: Field = Field::new(
        "input",
        Kind::Section,
        "{kind: image, channels: 1}",
        "how a raw value becomes numbers",
    );
    pub(in super::super) static ENCODER: Field =
        Field::new("encoder", Kind::Section, "{kind: cnn}", "the network of this modality");
    pub(in super::super) static WORKERS: Field = Field::new(
        "workers",
        Kind::Section,
        "{min: 1, max: 4}",
        "how many workers it may have",
    );
    pub(in super::super) static MIN: Field = Field::new(
        "min",
        Kind::Whole(1, 1024),
        "1",
        "training waits until so many are there",
    )
    .default("1")
    .unit("workers");
    pub(in super::super) static MAX: Field = Field::new(
        "max",
        Kind::Whole(1, 1024),
        "1",
        "no more than these are used; `min` by default",
    )
    .unit("workers");
}

/// `data`.
pub(super) mod data {
    use super::*;

    pub(in super::super) static SOURCE: Field = Field::new(
        "source",
        Kind::OneOf(&["parquet", "synth"]),
        "parquet",
        "files, or a generated data set",
    )
    .default("parquet");
    pub(in super::super) static TRAIN: Field = Field::new(
        "train",
        Kind::Paths,
        "\"s3://data/digits/train-*.parquet\"",
        "files to learn from; `*` and `?` match within a segment",
    );
    pub(in super::super) static VALIDATION: Field = Field::new(
        "validation",
        Kind::Other("a share of train from 0 to below 1, as 0.1 or 10%, or a path or URL, or a list of them"),
        "10%",
        "samples to choose by: a share of train, the same in every modality, or files of their own",
    )
    .default("10%");
    pub(in super::super) static TEST: Field =
        Field::new("test", Kind::Paths, "test.parquet", "files to report on").default("[]");
    pub(in super::super) static COLUMN: Field = Field::new(
        "column",
        Kind::Text,
        "audio",
        "the column with this modality; its name by default",
    );
    pub(in super::super) static ID: Field = Field::new(
        "id",
        Kind::Text,
        "id",
        "the column that pairs samples; without one the row's number",
    )
    .default("null");
    pub(in super::super) static KIND: Field = Field::new(
        "kind",
        Kind::OneOf(&["spoken-digits", "features"]),
        "spoken-digits",
        "which data set is generated: columns `image`, `audio`, `text`, or `a`, `b`",
    );
    pub(in super::super) static SAMPLES: Field = Field::new(
        "samples",
        Kind::Section,
        "{train: 2000, test: 500}",
        "samples in each split",
    );
    pub(in super::super) static SAMPLES_TRAIN: Field =
        Field::new("train", Kind::Whole(1, 1_000_000_000), "2000", "samples to learn from")
            .default("2000")
            .unit("samples");
    pub(in super::super) static SAMPLES_VALIDATION: Field = Field::new(
        "validation",
        Kind::Whole(0, 1_000_000_000),
        "500",
        "samples to choose by",
    )
    .default("500")
    .unit("samples");
    pub(in super::super) static SAMPLES_TEST: Field =
        Field::new("test", Kind::Whole(0, 1_000_000_000), "500", "samples to report on")
            .default("500")
            .unit("samples");
    pub(in super::super) static MISSING: Field = Field::new(
        "missing",
        Kind::Share,
        "10%",
        "share of samples that lack this modality",
    )
    .default("0");
    pub(in super::super) static SEED: Field = Field::new(
        "seed",
        Kind::Whole(0, u64::MAX),
        "1",
        "seed of the generator, apart from the job's",
    )
    .default("1");
}

/// `input`.
pub(super) mod input {
    use super::*;

    pub(in super::super) static KIND: Field = Field::new(
        "kind",
        Kind::OneOf(&["auto", "image", "audio", "text", "features"]),
        "image",
        "what the column holds; `auto` looks at its type and first value",
    )
    .default("auto");
    pub(in super::super) static HEIGHT: Field = Field::new(
        "height",
        Kind::Whole(1, SIZE),
        "28",
        "images are resized to it; by default that of the first",
    )
    .default("null")
    .unit("pixels");
    pub(in super::super) static WIDTH: Field = Field::new(
        "width",
        Kind::Whole(1, SIZE),
        "28",
        "images are resized to it; by default that of the first",
    )
    .default("null")
    .unit("pixels");
    pub(in super::super) static CHANNELS: Field =
        Field::new("channels", Kind::OneOf(&["1", "3"]), "1", "1 is grey, 3 is RGB").default("3");
    pub(in super::super) static SAMPLE_RATE: Field = Field::new(
        "sample_rate",
        Kind::Whole(1_000, 192_000),
        "8000",
        "every recording is resampled to it",
    )
    .default("16000")
    .unit("Hz");
    pub(in super::super) static SECONDS: Field = Field::new(
        "seconds",
        Kind::Seconds,
        "1.5 s",
        "recordings are cut, or padded with silence, to this length",
    )
    .default("1 s")
    .unit("s");
    pub(in super::super) static MELS: Field =
        Field::new("mels", Kind::Whole(1, 1024), "64", "bands of the log-mel spectrogram")
            .default("64")
            .unit("bands");
    pub(in super::super) static WINDOW: Field = Field::new(
        "window",
        Kind::Whole(16, SIZE),
        "256",
        "length of a Fourier window, a power of two",
    )
    .default("512")
    .unit("samples");
    pub(in super::super) static HOP: Field = Field::new(
        "hop",
        Kind::Whole(1, SIZE),
        "128",
        "from one window to the next, at most `window`",
    )
    .default("256")
    .unit("samples");
    pub(in super::super) static TOKENIZER: Field = Field::new(
        "tokenizer",
        Kind::Other("`byte` or the path or URL of a file that ends in .json"),
        "byte",
        "how text is cut: into UTF-8 bytes, or by a Hugging Face tokenizer",
    )
    .default("byte");
    pub(in super::super) static MAX_TOKENS: Field =
        Field::new("max_tokens", Kind::Whole(1, SIZE), "128", "longer texts are cut")
            .default("128")
            .unit("tokens");
    pub(in super::super) static STANDARDISE: Field = Field::new(
        "standardise",
        Kind::Flag,
        "true",
        "subtract the training split's mean and divide by its deviation",
    )
    .default("true");
}

/// `encoder`.
pub(super) mod encoder {
    use super::*;

    pub(in super::super) static KIND: Field = Field::new(
        "kind",
        Kind::OneOf(&["auto", "mlp", "cnn", "text"]),
        "cnn",
        "the network; `auto` is `mlp` for features, `cnn` for images and audio, `text` for text",
    )
    .default("auto");
    pub(in super::super) static HIDDEN: Field = Field::new(
        "hidden",
        Kind::Wholes {
            count: (0, 16),
            each: (1, SIZE),
        },
        "[256, 128]",
        "widths of the hidden layers",
    )
    .default("[128]")
    .unit("units");
    pub(in super::super) static CHANNELS: Field = Field::new(
        "channels",
        Kind::Wholes {
            count: (1, 16),
            each: (1, 8192),
        },
        "[16, 32, 64]",
        "channels of each stage; every stage halves height and width",
    )
    .default("[16, 32, 64]")
    .unit("channels");
    pub(in super::super) static WIDTH: Field = Field::new(
        "width",
        Kind::Whole(1, SIZE),
        "64",
        "of the embedding and the blocks, a multiple of `heads`",
    )
    .default("64")
    .unit("units");
    pub(in super::super) static LAYERS: Field = Field::new("layers", Kind::Whole(1, 128), "2", "transformer blocks")
        .default("2")
        .unit("blocks");
    pub(in super::super) static HEADS: Field = Field::new("heads", Kind::Whole(1, 256), "4", "attention heads")
        .default("4")
        .unit("heads");
    pub(in super::super) static DROPOUT: Field =
        Field::new("dropout", Kind::Share, "0.1", "share of units dropped in training").default("0");
}

/// `labels`.
pub(super) mod labels {
    use super::*;

    pub(in super::super) static COLUMN: Field =
        Field::new("column", Kind::Text, "label", "the column with the class").default("label");
    pub(in super::super) static CLASSES: Field = Field::new(
        "classes",
        Kind::Other("a whole number from 2 to 1000000, or a list of 2 names or more"),
        "10",
        "how many classes, for labels 0, 1, ...; or their names",
    );
    pub(in super::super) const MOST_CLASSES: u64 = 1_000_000;
}

/// `head`.
pub(super) mod head {
    use super::*;

    pub(in super::super) static WIDTH: Field = Field::new(
        "width",
        Kind::Whole(1, 16_384),
        "128",
        "s, the width that every encoder ends in",
    )
    .default("128")
    .unit("units");
    pub(in super::super) static PROJECTION: Field = Field::new(
        "projection",
        Kind::Section,
        "{kind: rls}",
        "what corrects the head's gradient",
    );
    pub(in super::super) static OPTIMIZER: Field = Field::new(
        "optimizer",
        Kind::Section,
        "{kind: sgd, lr: 0.05}",
        "the head's optimizer",
    );
    pub(in super::super) static KIND: Field = Field::new(
        "kind",
        Kind::OneOf(&["off", "rls", "window"]),
        "rls",
        "`rls` folds in every turn (the paper), `window` the last turns of the other modalities",
    )
    .default("rls");
    pub(in super::super) static ALPHA: Field = Field::new(
        "alpha",
        Kind::Other("a number above 0, or `decay`"),
        "decay",
        "the regulariser; `decay` goes from 0.1 to 0.01 within each epoch",
    )
    .default("decay");
    pub(in super::super) static RESET: Field = Field::new(
        "reset",
        Kind::OneOf(&["never", "epoch"]),
        "never",
        "when the projector starts anew",
    )
    .default("never");
    pub(in super::super) static APPLY_TO: Field = Field::new(
        "apply_to",
        Kind::OneOf(&["gradient", "update"]),
        "gradient",
        "what is projected: the gradient before the optimizer, or the step after it",
    )
    .default("gradient");
    pub(in super::super) static WINDOW_ALPHA: Field =
        Field::new("alpha", above(0.0), "0.1", "the regulariser").default("0.1");
    pub(in super::super) static TURNS: Field =
        Field::new("turns", Kind::Whole(1, SIZE), "16", "K, turns that are remembered")
            .default("16")
            .unit("turns");
}

/// `optimizer`.
pub(super) mod optimizer {
    use super::*;

    pub(in super::super) static KIND: Field =
        Field::new("kind", Kind::OneOf(&["sgd", "adamw"]), "adamw", "the rule").default("sgd");
    pub(in super::super) static LR: Field = Field::new("lr", above(0.0), "0.05", "learning rate").default("1e-3");
    pub(in super::super) static MOMENTUM: Field = Field::new("momentum", BELOW_ONE, "0.9", "of SGD").default("0.9");
    pub(in super::super) static WEIGHT_DECAY: Field =
        Field::new("weight_decay", at_least(0.0), "1e-4", "pull towards 0").default("1e-4");
    pub(in super::super) static ADAMW_WEIGHT_DECAY: Field = Field::new(
        "weight_decay",
        at_least(0.0),
        "0.01",
        "pull towards 0, apart from the gradient",
    )
    .default("0.01");
    pub(in super::super) static BETA1: Field =
        Field::new("beta1", BELOW_ONE, "0.9", "memory of the gradient's mean").default("0.9");
    pub(in super::super) static BETA2: Field =
        Field::new("beta2", BELOW_ONE, "0.999", "memory of the gradient's square").default("0.999");
    pub(in super::super) static EPS: Field =
        Field::new("eps", above(0.0), "1e-8", "keeps the division finite").default("1e-8");
    pub(in super::super) static CLIP: Field = Field::new(
        "clip",
        above(0.0),
        "5.0",
        "largest norm of the whole gradient; without one nothing is clipped",
    )
    .default("null");
    pub(in super::super) static SCHEDULE: Field = Field::new(
        "schedule",
        Kind::Section,
        "{kind: cosine}",
        "how the learning rate changes over the job",
    );
    pub(in super::super) static SCHEDULE_KIND: Field = Field::new(
        "kind",
        Kind::OneOf(&["constant", "step", "cosine"]),
        "cosine",
        "its course",
    )
    .default("constant");
    pub(in super::super) static WARMUP: Field = Field::new(
        "warmup",
        at_least(0.0),
        "1",
        "the rate rises linearly from 0 over so long",
    )
    .default("0")
    .unit("epochs");
    pub(in super::super) static AT: Field = Field::new(
        "at",
        Kind::Other("a list of numbers above 0, ascending"),
        "[70]",
        "when the rate is multiplied by `factor`",
    )
    .unit("epochs");
    pub(in super::super) static FACTOR: Field =
        Field::new("factor", above(0.0), "0.1", "what the rate is multiplied by").default("0.1");
    pub(in super::super) static FLOOR: Field =
        Field::new("floor", UP_TO_ONE, "0.01", "share of the rate that is left at the end").default("0");
}

/// The top-level `schedule`.
pub(super) mod schedule {
    use super::*;

    pub(in super::super) static EPOCHS: Field =
        Field::new("epochs", Kind::Whole(1, PLENTY), "15", "training ends after so many")
            .default("10")
            .unit("epochs");
    pub(in super::super) static TURNS: Field = Field::new(
        "turns",
        Kind::Whole(0, u64::MAX),
        "300",
        "training ends after so many, in place of `epochs`; 0 writes the initial state",
    )
    .unit("turns");
    pub(in super::super) static ORDER: Field = Field::new(
        "order",
        Kind::Other("`cyclic`, `weak-first` or turns per cycle, as {audio: 2}"),
        "cyclic",
        "whose turn it is: in the order of the job, highest loss first, or so many turns each (1 if not named)",
    )
    .default("cyclic");
    pub(in super::super) static ORDER_TURNS: Kind = Kind::Whole(1, 1_000_000);
    pub(in super::super) static BATCH: Field =
        Field::new("batch", Kind::Whole(1, 1_000_000), "64", "B, samples per step")
            .default("64")
            .unit("samples");
    pub(in super::super) static TURN_BATCHES: Field =
        Field::new("turn_batches", Kind::Whole(1, 1_000_000), "1", "k, steps per turn")
            .default("1")
            .unit("steps");
    pub(in super::super) static MICRO_SHARDS: Field = Field::new(
        "micro_shards",
        Kind::Whole(1, 1024),
        "1",
        "pieces that a batch is cut into, whatever the number of workers; results depend on it",
    )
    .default("1")
    .unit("pieces");
}

/// `checkpoints` and `evaluation`.
pub(super) mod keeping {
    use super::*;

    pub(in super::super) static TO: Field = Field::new(
        "to",
        Kind::Text,
        "s3://runs",
        "folder or URL of the store; by default the run's own folder",
    )
    .default("null");
    pub(in super::super) static EVERY: Field =
        Field::new("every", Kind::Period, "1 epoch", "how often").default("1 epoch");
    pub(in super::super) static KEEP: Field = Field::new(
        "keep",
        Kind::Whole(1, PLENTY),
        "3",
        "how many of the newest are kept, beside the best",
    )
    .default("3")
    .unit("checkpoints");
    pub(in super::super) static CHUNK: Field =
        Field::new("chunk", Kind::Whole(1, SIZE), "256", "samples per message of logits")
            .default("256")
            .unit("samples");
}
