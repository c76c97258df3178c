//! The objects that `data` prints.

use antiphon_core::reference::{Field, Kind, Object};

pub(super) static DATA: &[Object] = &[
    Object::new(
        "generated",
        "A data set has been generated.",
        &[
            Field::new("kind", Kind::OneOf(&["spoken-digits", "features"]), "Kind of data set."),
            Field::new("seed", Kind::Whole, "Seed of the generator."),
            Field::new("missing", Kind::Number, "Share of missing values."),
            Field::new("files", Kind::List(&Kind::Object(&WRITTEN_FILE)), "Files that were written."),
            Field::new("job", Kind::Text, "A job file that trains on the data set."),
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
        Field::new("row_groups", Kind::Whole, "Number of row groups. Readers hold one row group in memory at a time."),
    ],
);

static COLUMN: Object = Object::new(
    "column",
    "One column.",
    &[
        Field::new("name", Kind::Text, "Name of the column."),
        Field::new("arrow", Kind::Text, "Arrow type of the column."),
        Field::new("feature", Kind::Text, "Feature type of the column in Hugging Face's `datasets`."),
        Field::new("missing", Kind::Whole, "Rows without a value."),
        Field::new("missing_rate", Kind::Number, "Rows without a value, as a share of all rows."),
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
        Field::new("label", Kind::Text, "The label, as in the rows."),
        Field::new("name", Kind::Text, "Name of the label's number in the metadata of the file.").optional(),
        Field::new("rows", Kind::Whole, "Rows of the class."),
    ],
);

static IDS: Object = Object::new(
    "ids",
    "Whether ids are unique.",
    &[
        Field::new("column", Kind::Text, "Name of the column."),
        Field::new("duplicates", Kind::Whole, "Rows with the id of an earlier row of the table."),
        Field::new("within_files", Kind::Whole, "How many of these repeat an id of the same file."),
        Field::new("examples", Kind::List(&Kind::Any), "The first duplicates: the id, and `[file, row]` of both rows."),
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
            "Each value: its `column`, its `kind`, and further fields that depend on the kind.",
        ),
    ],
);
