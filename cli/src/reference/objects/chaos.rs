//! The objects that `chaos` prints and writes to its trace.

use antiphon_core::reference::{Field, Kind, Object};

use super::fields::JOB;

const SEED: Field = Field::new("seed", Kind::Whole, "Seed of the run.");
const AT: Field = Field::new("at", Kind::Number, "When it happened.");
const TURN: Field = Field::new("turn", Kind::Whole, "Turns that were applied at that time.");
const TURNS: Field = Field::new("turns", Kind::Whole, "Turns that are planned in total.");
const KIND: Field = Field::new(
    "kind",
    Kind::OneOf(&["kill", "stop", "disconnect", "stall", "refuse"]),
    "The fault: a process is killed or stopped, or the connection of a worker is closed, stalled or refused.",
);
const VICTIM: Field = Field::new("victim", Kind::Text, "The process: `coordinator` or `worker MODALITY`.");

pub(super) static CHAOS: &[Object] = &[
    Object::new(
        "baseline",
        "The baseline run, without faults, has finished.",
        &[
            Field::new(
                "digest",
                Kind::Text,
                "Digest of the result, as `sha256:…`. The digest of every run is compared with it.",
            ),
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
        "A process has exited by itself. It is restarted.",
        &[SEED, AT, TURN, TURNS, VICTIM, Field::new("status", Kind::Text, "How it exited.")],
    ),
    Object::new(
        "run_finished",
        "A run has ended.",
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
            Field::new("process_exits", Kind::Whole, "How often a process exited by itself."),
        ],
    ),
];
