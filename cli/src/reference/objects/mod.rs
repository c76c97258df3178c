//! The JSON objects that commands print beside the events of a job.

mod chaos;
mod checkpoint;
mod coordinator;
mod data;
mod fields;
mod job_file;

use antiphon_core::reference::{Field, Kind, Object};

use chaos::CHAOS;
use checkpoint::{PREDICT, VERIFY};
use coordinator::{CLIENT, JOBS};
use data::DATA;
use job_file::CHECK;

/// What one command, or one group of commands, prints.
#[derive(Debug)]
pub struct Printed {
    /// Names of the commands, as a heading.
    pub by: &'static str,
    /// A text about the objects.
    pub meaning: &'static str,
    /// The objects that the commands print.
    pub objects: &'static [Object],
}

/// Every object that a command prints, except for events of jobs.
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
    "The command has failed. The exit code indicates the kind of error.",
    &[Field::new("error", Kind::Text, "What went wrong, and what to do about it.")],
)];
