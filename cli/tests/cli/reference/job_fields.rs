//! `job-fields.md`: every field of a job file, from the tables that parse it.

use std::fmt::Write as _;

use antiphon_core::spec::{CHANGEABLE_ON_RESUME, FieldReference, SectionReference, reference};

use super::{code, compare_or_update, page, sentence, table};

#[test]
fn the_page_of_job_fields_is_up_to_date() {
    let sections = reference();
    let mut text = String::from(
        "`antiphon check JOB.yaml --explain` prints the fields of your job with their values. `*` stands for the name \
         of a modality. A field without a default is required, unless its meaning says otherwise.\n\nFields marked ↻ \
         may change when the job resumes from a checkpoint. All other fields must stay the same.\n\n",
    );
    text += &contents(&sections);
    for section in &sections {
        describe(section, &mut text);
    }
    compare_or_update(
        "job-fields.md",
        &page(
            "Job fields",
            "A job file consists of the fields below. Each has a meaning, a range and, in most cases, a default.",
            &text,
        ),
    );
}

/// The table of contents: links to the sections, one line per mapping.
fn contents(sections: &[SectionReference]) -> String {
    let mut text = String::new();
    for section in sections.iter().filter(|section| section.only.is_empty()) {
        let title = title(section);
        let kinds = sections.iter().filter(|other| other.path == section.path && !other.only.is_empty());
        let kinds: Vec<String> =
            kinds.map(|kind| format!("[{}](#{})", code(kind.only), anchor(&self::title(kind)))).collect();
        let kinds = if kinds.is_empty() { String::new() } else { format!(": {}", kinds.join(", ")) };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "- [{}](#{}){kinds}", code(&title), anchor(&title));
    }
    text
}

fn title(section: &SectionReference) -> String {
    match (section.path, section.only) {
        ("", _) => "Top level".to_owned(),
        (path, "") => path.to_owned(),
        (path, only) => format!("{path} with {only}"),
    }
}

/// The anchor of a heading, as in mdBook and on forges.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn describe(section: &SectionReference, text: &mut String) {
    let level = if section.only.is_empty() { "##" } else { "###" };
    // Writing to a String cannot fail.
    let _ = write!(text, "\n{level} {}\n\n{}\n\n", title(section).replace('*', "\\*"), section.meaning);
    let rows = section.fields.iter().map(|field| row(section, field));
    *text += &table(["Field", "Default", "Values", "Example", "Meaning"], rows);
}

fn row(section: &SectionReference, field: &FieldReference) -> [String; 5] {
    let mark = if may_change(section, field) { " ↻" } else { "" };
    let default = match (field.is_section, field.default) {
        (false, Some(default)) => code(default),
        _ => String::new(),
    };
    let unit = if field.unit.is_empty() { String::new() } else { format!(", in {}", field.unit) };
    let values = if field.is_section { "a mapping".to_owned() } else { format!("{}{unit}", field.range) };
    [format!("`{}`{mark}", field.key), default, values, code(field.example), sentence(field.meaning)]
}

/// Whether a path of a changeable field is this field or contains it. An optimizer is described once, so a modality's
/// optimizer counts as the shared one.
fn may_change(section: &SectionReference, field: &FieldReference) -> bool {
    let path = if section.path.is_empty() { field.key.to_owned() } else { format!("{}.{}", section.path, field.key) };
    let path = if path.starts_with("optimizer") { format!("modalities.*.{path}") } else { path };
    CHANGEABLE_ON_RESUME.iter().any(|free| path == *free || path.starts_with(&format!("{free}.")))
}
