//! The events of a job, as [`crate::event::JobEvent`] serialises them.

use super::{Field, Kind, Object};

const JOB: Field = Field::new("job", Kind::Text, "Id of the job.");
const TURN: Field = Field::new("turn", Kind::Whole, "Turns that the shared head has applied so far.");
const MODALITY: Field = Field::new("modality", Kind::Text, "Modality of the worker.");
const WORKER: Field = Field::new("worker", Kind::Text, "Name of the worker.");

/// Every event of a job, in the order of the life of a job.
pub static JOB_EVENTS: &[Object] = &[
    Object::new(
        "submitted",
        "The coordinator has accepted and persisted the job. Always the first event.",
        &[
            JOB,
            Field::new("name", Kind::Text, "`name` of the job file."),
            Field::new("resumed_from", Kind::Text, "URL or path of the checkpoint that the job resumes from.")
                .optional(),
        ],
    ),
    Object::new(
        "recovered",
        "A new coordinator has taken over the job. It repeats the turns after the checkpoint that it resumes from.",
        &[
            JOB,
            Field::new("term", Kind::Whole, "Term of the new coordinator, one higher than the previous term."),
            Field::new("turn", Kind::Whole, "Turns that are applied in the checkpoint that the job resumes from."),
            Field::new("checkpoint", Kind::Text, "URL or path of that checkpoint; null if the job starts again.")
                .or_null(),
            Field::new("reason", Kind::Text, "Why the previous coordinator no longer runs the job."),
        ],
    ),
    Object::new(
        "suspended",
        "The coordinator shuts down before the job has finished. The next coordinator on the same state resumes the \
         job.",
        &[
            JOB,
            TURN,
            Field::new("checkpoint", Kind::Text, "URL or path of the newest checkpoint; null if there is none.")
                .or_null(),
        ],
    ),
    Object::new(
        "waiting",
        "The job cannot compute at the moment. Repeated while the job waits.",
        &[
            JOB,
            Field::new("reason", Kind::Text, "What the job waits for."),
            Field::new("seconds", Kind::Number, "How long the job has waited, in seconds."),
        ],
    ),
    Object::new(
        "started",
        "Every modality has a ready worker, so training begins.",
        &[
            JOB,
            TURN,
            Field::new("turns", Kind::Whole, "Turns that are planned in total."),
            Field::new(
                "modalities",
                Kind::Map("modality", &Kind::Object(&MODALITY_START)),
                "Data and encoder of each modality.",
            ),
        ],
    ),
    Object::new(
        "lease_expired",
        "The lease of a worker has expired: no heartbeat, no progress, or a failure. Its slot is open to other workers, \
         but the worker may still come back.",
        &[JOB, TURN, MODALITY, WORKER, Field::new("reason", Kind::Text, "Why the lease expired.")],
    ),
    Object::new(
        "worker_lost",
        "A worker no longer belongs to the job: another worker has its slot, its connection is gone, or it left.",
        &[JOB, TURN, MODALITY, WORKER, Field::new("reason", Kind::Text, "Why the worker lost its slot.")],
    ),
    Object::new(
        "worker_ready",
        "A replacement worker has caught up with the shared head.",
        &[
            JOB,
            TURN,
            MODALITY,
            WORKER,
            Field::new("replayed", Kind::Whole, "Steps that the worker replayed since its checkpoint."),
            Field::new(
                "seconds",
                Kind::Number,
                "Seconds since the previous worker was lost, or since this one joined if none was lost.",
            ),
        ],
    ),
    Object::new(
        "mixed_numerics",
        "A worker joined whose floating-point results differ from those of the workers before it. The bits of the \
         result then depend on which worker took which step.",
        &[
            JOB,
            TURN,
            MODALITY,
            WORKER,
            Field::new("fingerprint", Kind::Text, "Numeric fingerprint of this worker: 16 hexadecimal digits."),
            Field::new(
                "before",
                Kind::List(&Kind::Text),
                "Fingerprints of the workers that computed for the job before.",
            ),
        ],
    ),
    Object::new(
        "step",
        "The shared head has taken one optimizer step.",
        &[
            JOB,
            Field::new("turn", Kind::Whole, "Turn that the step belongs to, from 0."),
            Field::new("step", Kind::Whole, "Step within the turn, from 0."),
            Field::new("epoch", Kind::Whole, "Epoch of the job, from 0."),
            Field::new("modality", Kind::Text, "Modality whose turn it is."),
            Field::new("loss", Kind::Number, "Mean cross-entropy over the batch, in nats."),
            Field::new("accuracy", Kind::Number, "Share of the batch that this modality alone classifies correctly."),
            Field::new("gradient_norm", Kind::Number, "Frobenius norm of the head's gradient G."),
            Field::new(
                "projected_ratio",
                Kind::Number,
                "Norm of the projected gradient divided by the norm of the gradient, |GP| / |G|. Near 0 the projector has \
                 frozen the head.",
            ),
            Field::new("projector_trace", Kind::Number, "Trace of the projector P before this turn is folded into it."),
            Field::new("lr", Kind::Number, "Learning rate of the head."),
        ],
    ),
    Object::new(
        "times",
        "Where the time went since the coordinator started the job. Printed at the end of an epoch, at most every ten \
         seconds, and at the end of the job.",
        &[
            JOB,
            TURN,
            Field::new("modalities", Kind::Map("modality", &Kind::Object(&WORKER_ACCOUNT)), "Time of each worker."),
            Field::new(
                "coordinator",
                Kind::Object(&COORDINATOR_ACCOUNT),
                "Time that the coordinator spent in the job's task.",
            ),
            Field::new(
                "queued",
                Kind::Object(&QUEUED),
                "How long contributions waited in the coordinator before the job's task read them.",
            ),
        ],
    ),
    Object::new(
        "evaluated",
        "An evaluation of one split has finished.",
        &[
            JOB,
            TURN,
            Field::new("evaluation", Kind::Whole, "Number of the evaluation within the job."),
            Field::new("report", Kind::Object(&EVALUATION_REPORT), "The result."),
        ],
    ),
    Object::new(
        "checkpoint",
        "A checkpoint is complete.",
        &[
            JOB,
            TURN,
            Field::new("checkpoint", Kind::Text, "URL or path of the checkpoint."),
            Field::new("digest", Kind::Text, "Digest of all trained tensors, as `sha256:…`."),
            Field::new("best", Kind::Flag, "Whether this is the best checkpoint so far by the validation split."),
            Field::new("seconds", Kind::Number, "Seconds from the snapshot until the checkpoint was complete."),
            Field::new(
                "stall_seconds",
                Kind::Number,
                "Stall time: how many of these seconds training was stalled, for the snapshot or because a turn waited \
                 for the store.",
            ),
        ],
    ),
    Object::new(
        "finished",
        "The job has ended. This is always the last event.",
        &[
            JOB,
            Field::new(
                "state",
                Kind::OneOf(&["succeeded", "stopped", "failed"]),
                "Whether the job reached its planned length, was stopped on request, or failed.",
            ),
            Field::new("reason", Kind::Text, "Why the job failed.").optional(),
            TURN,
            Field::new("turns", Kind::Whole, "Turns that were planned in total; null if training never began.")
                .or_null(),
            Field::new("checkpoint", Kind::Text, "URL or path of the newest checkpoint; null if there is none.")
                .or_null(),
            Field::new("digest", Kind::Text, "Digest of that checkpoint, as `sha256:…`.").or_null(),
            Field::new("best", Kind::Object(&BEST), "The best checkpoint by the validation split; null without one.")
                .or_null(),
            Field::new(
                "evaluation",
                Kind::Object(&EVALUATION_REPORT),
                "Result on the test split at the end of the job; null if it was not evaluated.",
            )
            .or_null(),
            Field::new(
                "resume",
                Kind::Text,
                "Command that resumes the job. Only printed by `antiphon run`, and only if the job did not succeed.",
            )
            .optional(),
        ],
    ),
];

static MODALITY_START: Object = Object::new(
    "modality start",
    "What a worker reported after it opened its data.",
    &[
        Field::new("samples", Kind::Object(&SPLIT_SIZES), "Samples that have this modality."),
        Field::new("parameters", Kind::Whole, "Number of parameters of the encoder."),
        Field::new("fingerprint", Kind::Text, "Numeric fingerprint of the worker: 16 hexadecimal digits.").optional(),
        Field::new("turns_done", Kind::Whole, "Turns of this modality that were applied before."),
        Field::new("turns", Kind::Whole, "Turns of this modality that are planned in total, as far as known."),
    ],
);

static SPLIT_SIZES: Object = Object::new(
    "split sizes",
    "Samples in each split.",
    &[
        Field::new("train", Kind::Whole, "Samples for training."),
        Field::new("validation", Kind::Whole, "Samples that select the best checkpoint."),
        Field::new("test", Kind::Whole, "Samples for the final report."),
    ],
);

static WORKER_ACCOUNT: Object = Object::new(
    "worker times",
    "Time of a worker's computing thread.",
    &[
        Field::new("steps", Kind::Whole, "Steps of the head that the times cover."),
        Field::new("seconds", Kind::Object(&WORKER_SECONDS), "Seconds over all these steps."),
    ],
);

static WORKER_SECONDS: Object = Object::new(
    "worker seconds",
    "Seconds by activity of a worker.",
    &[
        Field::new("data", Kind::Number, "Waiting for the next batch to be read and decoded."),
        Field::new("forward", Kind::Number, "Forward pass of the encoder."),
        Field::new("waiting", Kind::Number, "Waiting for the shared head."),
        Field::new("head", Kind::Number, "The worker's part of a head step: logits, loss and gradients."),
        Field::new("exchange", Kind::Number, "Encoding, decoding and sending messages."),
        Field::new("backward", Kind::Number, "Backward pass of the encoder, and its optimizer."),
        Field::new("other", Kind::Number, "Evaluation and checkpoints."),
    ],
);

static COORDINATOR_ACCOUNT: Object = Object::new(
    "coordinator times",
    "Time that the coordinator spent in the job's task.",
    &[
        Field::new("steps", Kind::Whole, "Steps of the head that the times cover."),
        Field::new("seconds", Kind::Object(&COORDINATOR_SECONDS), "Seconds over all these steps."),
    ],
);

static COORDINATOR_SECONDS: Object = Object::new(
    "coordinator seconds",
    "Seconds by activity of the job's task on the coordinator.",
    &[
        Field::new("decode", Kind::Number, "Decoding and checking contributions."),
        Field::new("project", Kind::Number, "Projecting the gradient, G P."),
        Field::new("step", Kind::Number, "The optimizer of the head."),
        Field::new("fold", Kind::Number, "Folding mean features into the projector P."),
        Field::new("encode", Kind::Number, "Encoding grants of the head."),
        Field::new("idle", Kind::Number, "Waiting for contributions."),
        Field::new("other", Kind::Number, "Evaluation, checkpoints, events and sending messages."),
    ],
);

static QUEUED: Object = Object::new(
    "queued",
    "How long contributions waited, in seconds.",
    &[
        Field::new("mean", Kind::Number, "Mean over all contributions."),
        Field::new("max", Kind::Number, "The longest wait."),
    ],
);

static BEST: Object = Object::new(
    "best checkpoint",
    "The checkpoint with the highest accuracy on the validation split.",
    &[
        TURN,
        Field::new("checkpoint", Kind::Text, "URL or path of the checkpoint."),
        Field::new("score", Kind::Number, "Accuracy on the validation split by the job's fusion rule."),
    ],
);

/// The result of an evaluation.
pub static EVALUATION_REPORT: Object = Object::new(
    "evaluation report",
    "The result of evaluating one split.",
    &[
        Field::new("split", Kind::OneOf(&["train", "validation", "test"]), "The split."),
        Field::new("samples", Kind::Whole, "Samples that have at least one modality."),
        Field::new(
            "modalities",
            Kind::Map("modality", &Kind::Object(&MODALITY_SCORES)),
            "Each modality alone, over the samples that have it.",
        ),
        Field::new(
            "fused",
            Kind::Map("rule", &Kind::Object(&SCORES)),
            "All modalities fused, by each rule (`entropy`, `mean`, `fixed`, `tuned`), over all samples.",
        ),
        Field::new(
            "tuned_weights",
            Kind::Map("modality", &Kind::Number),
            "Weights of the rule `tuned`. They are found on the validation split.",
        )
        .optional(),
        Field::new("not_tuned", Kind::Text, "Why no weights were tuned on the validation split.").optional(),
    ],
);

static MODALITY_SCORES: Object = Object::new(
    "modality scores",
    "How well one modality predicts alone. All figures are 0 if no sample has it.",
    &[
        Field::new("samples", Kind::Whole, "Samples that have this modality."),
        Field::new("loss", Kind::Number, "Mean cross-entropy, in nats."),
        Field::new("entropy", Kind::Number, "Mean entropy of the predictions, in nats."),
        Field::new(
            "lambda",
            Kind::Number,
            "Mean fusion weight λ under the rule `entropy` over all samples; a sample without the modality counts as \
             0.",
        ),
    ],
)
.with(&SCORES);

/// How accurate predictions are.
pub static SCORES: Object = Object::new(
    "scores",
    "How accurate predictions are.",
    &[
        Field::new("accuracy", Kind::Number, "Share of correct predictions."),
        Field::new(
            "macro_f1",
            Kind::Number,
            "Mean F1 score over the classes that occur as a label or as a prediction.",
        ),
        Field::new(
            "ece",
            Kind::Number,
            "Expected calibration error, over 15 bins of equal width of the highest probability. Omitted for weights \
             that were tuned on this split.",
        )
        .optional(),
        Field::new(
            "confusion",
            Kind::List(&Kind::List(&Kind::Whole)),
            "Non-zero cells of the confusion matrix, each as `[label, prediction, count]`. Omitted where `ece` is.",
        )
        .optional(),
    ],
);
