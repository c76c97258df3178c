//! The objects of commands that talk to a coordinator.

use antiphon_core::reference::{Field, Kind, Object};

use super::fields::JOB;

pub(super) static CLIENT: &[Object] = &[
    Object::new(
        "unreachable",
        "The coordinator cannot be reached. The command retries until --reconnect-timeout.",
        &[
            Field::new("job", Kind::Text, "Id of the job; null if it has none yet.").or_null(),
            Field::new("seconds", Kind::Whole, "How long the coordinator has been unreachable, in seconds."),
            Field::new("error", Kind::Text, "Why the last attempt failed."),
        ],
    ),
    Object::new(
        "reconnected",
        "The coordinator is reachable again.",
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

pub(super) static JOBS: &[Object] = &[Object::new(
    "job",
    "A job of the coordinator.",
    &[
        JOB,
        Field::new("name", Kind::Text, "`name` of the job file."),
        Field::new(
            "state",
            Kind::OneOf(&["waiting", "running", "succeeded", "failed", "stopped"]),
            "State of the job.",
        ),
        Field::new(
            "reason",
            Kind::Text,
            "What the job waits for, or why it ended; empty if there is no reason to report.",
        ),
        Field::new("term", Kind::Whole, "Term of the coordinator; it grows by one each time a coordinator takes over."),
        Field::new("turn", Kind::Whole, "Turns that the shared head has applied so far."),
        Field::new("turns", Kind::Whole, "Turns that are planned in total; null until that is known.").or_null(),
        Field::new("submitted", Kind::Text, "When the job was submitted, as an RFC 3339 time.").or_null(),
        Field::new("checkpoint", Kind::Text, "URL or path of the newest checkpoint; null if there is none.").or_null(),
    ],
)];
