//! The objects that `check` prints.

use antiphon_core::reference::{Field, Kind, Object};

pub(super) static CHECK: &[Object] = &[Object::new(
    "checked",
    "The job file has been checked.",
    &[
        Field::new("valid", Kind::Flag, "Whether the file is a valid job."),
        Field::new("specification", Kind::Any, "The complete job with every default. Only if it is valid.").optional(),
        Field::new("fields", Kind::List(&Kind::Object(&EXPLAINED)), "Every field. Only with `--explain`.").optional(),
        Field::new("errors", Kind::List(&Kind::Object(&JOB_FILE_ERROR)), "All errors. Only if the file is invalid.")
            .optional(),
    ],
)];

static EXPLAINED: Object = Object::new(
    "explained field",
    "One field of a job.",
    &[
        Field::new("key", Kind::Text, "Full path of the key, as in `schedule.batch`."),
        Field::new("value", Kind::Any, "The effective value."),
        Field::new("given", Kind::Object(&POSITION), "Where the value was given; null for a default.").or_null(),
        Field::new("unit", Kind::Text, "Unit of the value; empty without one."),
        Field::new("range", Kind::Text, "Values that the field accepts."),
        Field::new("meaning", Kind::Text, "What the field is for."),
        Field::new("example", Kind::Text, "An example value, as written in a job file."),
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
    "One error in a job file. If the file could not be read, there is only a `message`.",
    &[
        Field::new("at", Kind::Object(&POSITION), "Where.").optional(),
        Field::new("key", Kind::Text, "Full path of the key.").optional(),
        Field::new("value", Kind::Any, "The value that was refused.").optional(),
        Field::new("rule", Kind::Text, "The rule that it breaks.").optional(),
        Field::new("message", Kind::Text, "The whole error in one line."),
    ],
);
