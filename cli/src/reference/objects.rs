//! The JSON objects that commands print beside the events of a job.

use antiphon_core::reference::{EVALUATION_REPORT, Field, Kind, Object};

/// What one command, or one group of commands, prints.
#[derive(Debug)]
pub struct Printed {
    /// The commands, as a heading.
    pub by: &'static str,
    /// What is said about them.
    pub meaning: &'static str,
    /// The objects.
    pub objects: &'static [Object],
}

const JOB: Field = Field::new("job", Kind::Text, "Id of the job.");
const CHECKPOINT: Field = Field::new("checkpoint", Kind::Text, "URL or path of the checkpoint.");

/// Every object that a command prints and that is no event of a job.
pub static PRINTED: &[Printed] = &[
    Printed { by: "Every command", meaning: "A command that fails prints this as its last line.", objects: ANY },
    Printed {
        by: "submit, follow and stop",
        meaning: "A command that talks to a coordinator prints these when the connection breaks or the answer takes long. \
                  `submit` without `--follow` prints `submitted` and ends.",
        objects: CLIENT,
    },
    Printed { by: "jobs and stop", meaning: "One object per job.", objects: JOBS },
    Printed { by: "check", meaning: "One object.", objects: CHECK },
    Printed {
        by: "eval and predict",
        meaning: "One object; `predict` without `--output` prints one line per sample, which has no `event`.",
        objects: PREDICT,
    },
    Printed { by: "verify", meaning: "One object.", objects: VERIFY },
    Printed { by: "data synth and data inspect", meaning: "One object.", objects: DATA },
    Printed {
        by: "chaos",
        meaning: "The objects of all runs. They are also written to `trace.jsonl` in the folder of the run. Times are in seconds since \
                  the run began.",
        objects: CHAOS,
    },
];

static ANY: &[Object] = &[Object::new(
    "error",
    "The command has failed. The exit code says of which kind the error is.",
    &[Field::new("error", Kind::Text, "What went wrong, and what to do about it.")],
)];

static CLIENT: &[Object] = &[
    Object::new(
        "unreachable",
        "The coordinator cannot be reached. The command tries again until its time limit for that is over.",
        &[
            Field::new("job", Kind::Text, "Id of the job; null if it has none yet.").or_null(),
            Field::new("seconds", Kind::Whole, "How long the coordinator has been unreachable, in seconds."),
            Field::new("error", Kind::Text, "Why the last attempt failed."),
        ],
    ),
    Object::new(
        "reconnected",
        "The connection to the coordinator is back.",
        &[
            Field::new("job", Kind::Text, "Id of the job; null if it has none yet.").or_null(),
            Field::new("seconds", Kind::Whole, "How long the coordinator was unreachable, in seconds."),
        ],
    ),
    Object::new(
        "waiting",
        "The coordinator has not answered a request yet.",
        &[
            Field::new("job", Kind::Text, "Id of the job; null if it has none yet.").or_null(),
            Field::new("reason", Kind::Text, "What the command waits for."),
            Field::new("seconds", Kind::Whole, "How long it has waited, in seconds."),
        ],
    ),
];

static JOBS: &[Object] = &[Object::new(
    "job",
    "A job of the coordinator.",
    &[
        JOB,
        Field::new("name", Kind::Text, "`name` of the job file."),
        Field::new(
            "state",
            Kind::OneOf(&["waiting", "running", "succeeded", "failed", "stopped"]),
            "What the job is doing, or how it ended.",
        ),
        Field::new("reason", Kind::Text, "What the job waits for, or why it ended; empty if there is nothing to say."),
        Field::new("term", Kind::Whole, "Term of the coordinator; it grows by one each time a coordinator takes over."),
        Field::new("turn", Kind::Whole, "Turns that the shared head has applied so far."),
        Field::new("turns", Kind::Whole, "Turns that are planned in total; null until that is known.").or_null(),
        Field::new("submitted", Kind::Text, "When the job was submitted, as an RFC 3339 time.").or_null(),
        Field::new("checkpoint", Kind::Text, "URL or path of the newest checkpoint; null if there is none.").or_null(),
    ],
)];

static CHECK: &[Object] = &[Object::new(
    "checked",
    "The job file has been checked.",
    &[
        Field::new("valid", Kind::Flag, "Whether the file is a valid job."),
        Field::new("specification", Kind::Any, "The whole job with every default. Only if it is valid.").optional(),
        Field::new("fields", Kind::List(&Kind::Object(&EXPLAINED)), "Every field. Only with `--explain`.").optional(),
        Field::new(
            "errors",
            Kind::List(&Kind::Object(&JOB_FILE_ERROR)),
            "Everything that is wrong. Only if it is invalid.",
        )
        .optional(),
    ],
)];

static EXPLAINED: Object = Object::new(
    "explained field",
    "One field of a job.",
    &[
        Field::new("key", Kind::Text, "Full path of the key, as `schedule.batch`."),
        Field::new("value", Kind::Any, "The value that counts."),
        Field::new("given", Kind::Object(&POSITION), "Where the value was given; null for a default.").or_null(),
        Field::new("unit", Kind::Text, "Unit of the value; empty without one."),
        Field::new("range", Kind::Text, "Values that the field takes."),
        Field::new("meaning", Kind::Text, "What the field is for."),
        Field::new("example", Kind::Text, "A value as it would be written."),
    ],
);

static POSITION: Object = Object::new(
    "position",
    "A position in the job file, or a `--set` option.",
    &[
        Field::new("line", Kind::Whole, "Line in the file, from 1.").optional(),
        Field::new("column", Kind::Whole, "Column in the line, from 1.").optional(),
        Field::new("set", Kind::Text, "The text after `--set`.").optional(),
    ],
);

static JOB_FILE_ERROR: Object = Object::new(
    "job file error",
    "One thing that is wrong with a job file. If the file could not be read at all there is a `message` only.",
    &[
        Field::new("at", Kind::Object(&POSITION), "Where.").optional(),
        Field::new("key", Kind::Text, "Full path of the key.").optional(),
        Field::new("value", Kind::Any, "The value that was refused.").optional(),
        Field::new("rule", Kind::Text, "The rule that it breaks.").optional(),
        Field::new("message", Kind::Text, "All of this in one line."),
    ],
);

static PREDICT: &[Object] = &[
    Object::new(
        "evaluation",
        "The result of `eval`.",
        &[
            CHECKPOINT,
            Field::new("turn", Kind::Whole, "Turns that are applied in the checkpoint."),
            Field::new(
                "fusion",
                Kind::OneOf(&["entropy", "mean", "fixed", "tuned"]),
                "Rule that the headline figures are given by.",
            ),
            Field::new("dropped", Kind::List(&Kind::Text), "Modalities that were left out with `--drop`."),
        ],
    )
    .with(&EVALUATION_REPORT),
    Object::new(
        "predicted",
        "`predict --output` has written its file.",
        &[
            CHECKPOINT,
            Field::new("samples", Kind::Whole, "Number of predictions."),
            Field::new("output", Kind::Text, "Path of the file."),
        ],
    ),
    Object::new(
        "",
        "One prediction: a line of `predict`, or a row of its output file.",
        &[
            Field::new("id", Kind::Text, "Id of the sample."),
            Field::new("label", Kind::Whole, "Label of the sample; null if it is unknown.").or_null(),
            Field::new("label_class", Kind::Text, "Name of that class. Only if the job names its classes.").optional(),
            Field::new("prediction", Kind::Whole, "The class with the highest probability."),
            Field::new("prediction_class", Kind::Text, "Name of that class. Only if the job names its classes.")
                .optional(),
            Field::new("probabilities", Kind::List(&Kind::Number), "Probability of each class."),
            Field::new("modalities", Kind::Map("modality", &Kind::Object(&WEIGHED)), "Contribution of each modality."),
        ],
    ),
];

static WEIGHED: Object = Object::new(
    "contribution of a modality",
    "What one modality contributed to a prediction.",
    &[
        Field::new("lambda", Kind::Number, "Fusion weight λ; 0 if the sample lacks the modality."),
        Field::new(
            "entropy",
            Kind::Number,
            "Entropy of its prediction, in nats; null if the sample lacks the modality.",
        )
        .or_null(),
    ],
);

static VERIFY: &[Object] = &[Object::new(
    "verified",
    "The checkpoint has been verified.",
    &[
        CHECKPOINT,
        JOB,
        Field::new("turn", Kind::Whole, "Turns that are applied in the checkpoint."),
        Field::new("epoch", Kind::Whole, "Complete epochs."),
        Field::new("digest", Kind::Text, "Digest of all trained tensors, as `sha256:…`."),
        Field::new("sound", Kind::Flag, "Whether every file is sound."),
        Field::new("files", Kind::List(&Kind::Object(&VERDICT)), "Each file of the checkpoint."),
        Field::new("replay", Kind::Object(&REPLAYED), "Result of the replay. Only with `--replay`.").optional(),
    ],
)];

static VERDICT: Object = Object::new(
    "verified file",
    "One file of a checkpoint.",
    &[
        Field::new("file", Kind::Text, "Name of the file."),
        Field::new("size", Kind::Whole, "Size in bytes by the manifest; null if the manifest does not list the file.")
            .or_null(),
        Field::new("sha256", Kind::Text, "SHA-256 by the manifest.").or_null(),
        Field::new("sound", Kind::Flag, "Whether the file is sound."),
        Field::new(
            "state",
            Kind::OneOf(&["sound", "damaged", "unreadable"]),
            "Whether the file is sound, is damaged, or could not be read.",
        ),
        Field::new("reason", Kind::Text, "What is wrong with the file, or why it could not be read.").or_null(),
    ],
);

static REPLAYED: Object = Object::new(
    "replay",
    "The result of a second training up to the checkpoint.",
    &[
        Field::new("from", Kind::Text, "Checkpoint that the replay began at; null for the beginning of the job.")
            .or_null(),
        Field::new("turn", Kind::Whole, "Turns that are applied at the end of the replay."),
        Field::new("same", Kind::Flag, "Whether every file is the same, bit for bit."),
        Field::new("digest", Kind::Text, "Digest of the replay, as `sha256:…`."),
        Field::new("files", Kind::List(&Kind::Object(&COMPARED)), "Each file of both."),
    ],
);

static COMPARED: Object = Object::new(
    "compared file",
    "One file of a checkpoint, compared with its replay.",
    &[
        Field::new("file", Kind::Text, "Name of the file."),
        Field::new("same", Kind::Flag, "Whether both have the same hash."),
        Field::new("sha256", Kind::Text, "SHA-256 in the checkpoint; null if the file is not there.").or_null(),
        Field::new("replayed", Kind::Text, "SHA-256 in the replay; null if the file is not there.").or_null(),
    ],
);

static DATA: &[Object] = &[
    Object::new(
        "generated",
        "A data set has been generated.",
        &[
            Field::new("kind", Kind::OneOf(&["spoken-digits", "features"]), "Which data set."),
            Field::new("seed", Kind::Whole, "Seed of the generator."),
            Field::new("missing", Kind::Number, "Share of missing values."),
            Field::new("files", Kind::List(&Kind::Object(&WRITTEN_FILE)), "Files that were written."),
            Field::new("job", Kind::Text, "A job file that trains on them."),
        ],
    ),
    Object::new(
        "inspected",
        "Data files have been inspected.",
        &[Field::new("tables", Kind::List(&Kind::Object(&TABLE)), "Files grouped by their columns.")],
    ),
];

static WRITTEN_FILE: Object = Object::new(
    "written file",
    "One generated file.",
    &[
        Field::new("split", Kind::OneOf(&["train", "validation", "test"]), "Split that the rows belong to."),
        Field::new("path", Kind::Text, "Path of the file."),
        Field::new("rows", Kind::Whole, "Rows in the file."),
        Field::new("bytes", Kind::Whole, "Size of the file."),
    ],
);

static TABLE: Object = Object::new(
    "table",
    "Files that have the same columns.",
    &[
        Field::new("files", Kind::List(&Kind::Object(&DATA_FILE)), "The files, in the order of their names."),
        Field::new("rows", Kind::Whole, "Rows of all files."),
        Field::new("columns", Kind::List(&Kind::Object(&COLUMN)), "The columns."),
        Field::new("labels", Kind::Object(&LABELS), "Classes; null without a column of labels.").or_null(),
        Field::new("ids", Kind::Object(&IDS), "Ids; null without a column of ids.").or_null(),
        Field::new("samples", Kind::List(&Kind::Object(&SAMPLE)), "The first rows."),
    ],
);

static DATA_FILE: Object = Object::new(
    "data file",
    "One data file.",
    &[
        Field::new("file", Kind::Text, "Path or URL."),
        Field::new("bytes", Kind::Whole, "Size of the file."),
        Field::new("rows", Kind::Whole, "Rows in the file."),
        Field::new("row_groups", Kind::Whole, "Row groups. One of them is in memory at a time when the file is read."),
    ],
);

static COLUMN: Object = Object::new(
    "column",
    "One column.",
    &[
        Field::new("name", Kind::Text, "Name of the column."),
        Field::new("arrow", Kind::Text, "Its type in Arrow's words."),
        Field::new("feature", Kind::Text, "Its type in the words of Hugging Face's `datasets`."),
        Field::new("missing", Kind::Whole, "Rows without a value."),
        Field::new("missing_rate", Kind::Number, "The same as a share of all rows."),
    ],
);

static LABELS: Object = Object::new(
    "labels",
    "The classes of a table.",
    &[
        Field::new("column", Kind::Text, "Name of the column."),
        Field::new("classes", Kind::List(&Kind::Object(&CLASS)), "Each class."),
        Field::new("others", Kind::Whole, "Rows of classes beyond the first 10,000."),
        Field::new("without", Kind::Whole, "Rows whose label is null, or neither an integer nor a string."),
    ],
);

static CLASS: Object = Object::new(
    "class",
    "One class.",
    &[
        Field::new("label", Kind::Text, "The label as the rows have it."),
        Field::new("name", Kind::Text, "Name of that number in the metadata of the file.").optional(),
        Field::new("rows", Kind::Whole, "Rows of the class."),
    ],
);

static IDS: Object = Object::new(
    "ids",
    "Whether ids are unique.",
    &[
        Field::new("column", Kind::Text, "Name of the column."),
        Field::new("duplicates", Kind::Whole, "Rows with the id of an earlier row of the table."),
        Field::new("within_files", Kind::Whole, "How many of them repeat an id of the same file."),
        Field::new("examples", Kind::List(&Kind::Any), "The first of them: the id, and `[file, row]` of both rows."),
        Field::new("without", Kind::Whole, "Rows whose id is null, or neither an integer nor a string."),
    ],
);

static SAMPLE: Object = Object::new(
    "sample",
    "One row.",
    &[
        Field::new("file", Kind::Text, "The file."),
        Field::new("row", Kind::Whole, "Number of the row in the file, from 0."),
        Field::new(
            "values",
            Kind::List(&Kind::Any),
            "Each value: its `column`, its `kind`, and what there is to say of a value of that kind.",
        ),
    ],
);

const SEED: Field = Field::new("seed", Kind::Whole, "Seed of the run.");
const AT: Field = Field::new("at", Kind::Number, "When it happened.");
const TURN: Field = Field::new("turn", Kind::Whole, "Turns that were applied by then.");
const TURNS: Field = Field::new("turns", Kind::Whole, "Turns that are planned in total.");
const KIND: Field = Field::new(
    "kind",
    Kind::OneOf(&["kill", "stop", "disconnect", "stall", "refuse"]),
    "The fault: a process is killed or stopped, or the connection of a worker is closed, stalled or refused.",
);
const VICTIM: Field = Field::new("victim", Kind::Text, "The process: `coordinator` or `worker MODALITY`.");

static CHAOS: &[Object] = &[
    Object::new(
        "baseline",
        "The baseline run, without faults, has finished.",
        &[
            Field::new("digest", Kind::Text, "Digest of the result, as `sha256:…`. Every run is compared with it."),
            Field::new("seconds", Kind::Number, "How long it took."),
        ],
    ),
    Object::new(
        "run_started",
        "A run with faults has started.",
        &[SEED, JOB, Field::new("folder", Kind::Text, "Folder with the state, the trace and the logs of the run.")],
    ),
    Object::new(
        "fault",
        "A fault has been injected.",
        &[SEED, AT, TURN, TURNS, KIND, VICTIM, Field::new("lasts", Kind::Number, "How long it will last.")],
    ),
    Object::new("fault_ended", "A fault has ended.", &[SEED, AT, TURN, TURNS, KIND, VICTIM]),
    Object::new(
        "process_exited",
        "A process has exited without being killed. It is started again.",
        &[SEED, AT, TURN, TURNS, VICTIM, Field::new("status", Kind::Text, "How it exited.")],
    ),
    Object::new(
        "run_finished",
        "A run is over.",
        &[
            SEED,
            Field::new(
                "outcome",
                Kind::OneOf(&["same", "different", "failed", "too_slow", "hung", "interrupted"]),
                "Whether the result is the same as that of the baseline run, or why there is none.",
            ),
            Field::new("reason", Kind::Text, "Why the run failed.").or_null(),
            TURN,
            TURNS,
            Field::new("digest", Kind::Text, "Digest of the result; null if there is none.").or_null(),
            Field::new("expected", Kind::Text, "Digest of the baseline run."),
            Field::new("seconds", Kind::Number, "How long the run took."),
            Field::new("faults", Kind::Map("fault", &Kind::Whole), "How often each fault was injected."),
            Field::new("process_exits", Kind::Whole, "How often a process exited without being killed."),
        ],
    ),
];
