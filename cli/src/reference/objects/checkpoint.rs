//! The objects that `eval`, `predict` and `verify` print about a checkpoint.

use antiphon_core::reference::{EVALUATION_REPORT, Field, Kind, Object};

use super::fields::{CHECKPOINT, JOB};

pub(super) static PREDICT: &[Object] = &[
    Object::new(
        "evaluation",
        "The result of `eval`.",
        &[
            CHECKPOINT,
            Field::new("turn", Kind::Whole, "Turns that are applied in the checkpoint."),
            Field::new(
                "fusion",
                Kind::OneOf(&["entropy", "mean", "fixed", "tuned"]),
                "Fusion rule of the headline figures.",
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
    "The contribution of one modality to a prediction.",
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

pub(super) static VERIFY: &[Object] = &[Object::new(
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
        Field::new(
            "size",
            Kind::Whole,
            "Size in bytes from the manifest; null if the manifest does not list the file.",
        )
        .or_null(),
        Field::new("sha256", Kind::Text, "SHA-256 from the manifest.").or_null(),
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
    "The result of training the job again up to the checkpoint.",
    &[
        Field::new("from", Kind::Text, "Checkpoint that the replay began at; null for the beginning of the job.")
            .or_null(),
        Field::new("turn", Kind::Whole, "Turns that are applied at the end of the replay."),
        Field::new("same", Kind::Flag, "Whether every file has the same bits."),
        Field::new("digest", Kind::Text, "Digest of the replay, as `sha256:…`."),
        Field::new("files", Kind::List(&Kind::Object(&COMPARED)), "Each file of the checkpoint or the replay."),
    ],
);

static COMPARED: Object = Object::new(
    "compared file",
    "One file of a checkpoint, compared with its replay.",
    &[
        Field::new("file", Kind::Text, "Name of the file."),
        Field::new("same", Kind::Flag, "Whether both have the same hash."),
        Field::new("sha256", Kind::Text, "SHA-256 in the checkpoint; null if the file does not exist.").or_null(),
        Field::new("replayed", Kind::Text, "SHA-256 in the replay; null if the file does not exist.").or_null(),
    ],
);
