//! Generates the reference page of the wire from the `.proto` files and their comments.
//! `UPDATE=1 cargo test -p antiphon-proto --test proto reference::` writes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::source_code_info::Location;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, ServiceDescriptorProto,
};

const FILES: [&str; 3] = ["antiphon/v1/job.proto", "antiphon/v1/training.proto", "antiphon/v1/tensor.proto"];

const HEAD: &str = "# gRPC

The gRPC interface `antiphon.v1` consists of the services, methods and messages below.

*Generated from the code by `UPDATE=1 cargo test -p antiphon-proto --test proto reference::`; do not edit it here.*

A client needs the [job service](#jobservice) only. Workers speak the [training service](#trainingservice). The coordinator also serves the standard gRPC health and reflection services.
";

#[test]
fn the_page_of_the_wire_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(FILES, [root.join("proto")]).expect("the .proto files compile");
    let mut text = HEAD.to_owned();
    for name in FILES {
        let file = descriptors.file.iter().find(|file| file.name() == name).expect("the file is compiled");
        describe(file, &mut text);
    }
    let path = root.join("../docs/src/reference/wire.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, text).expect("the page is written");
        return;
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == text,
        "docs/src/reference/wire.md is out of date: run `UPDATE=1 cargo test -p antiphon-proto --test proto reference::`"
    );
}

fn describe(file: &FileDescriptorProto, text: &mut String) {
    let comments = Comments::of(file);
    // Writing to a String cannot fail.
    let _ = write!(text, "\n## {}\n", file.name());
    for (index, service) in file.service.iter().enumerate() {
        self::service(service, &comments, &[6, index as i32], text);
    }
    for (index, message) in file.message_type.iter().enumerate() {
        self::message(message, &comments, &[4, index as i32], text);
    }
    for (index, enumeration) in file.enum_type.iter().enumerate() {
        self::enumeration(enumeration, &comments, &[5, index as i32], text);
    }
}

fn service(service: &ServiceDescriptorProto, comments: &Comments, path: &[i32], text: &mut String) {
    let _ = write!(text, "\n### {}\n\n{}\n\n", service.name(), comments.at(path));
    *text += "| Method | Request | Response | Meaning |\n| --- | --- | --- | --- |\n";
    for (index, method) in service.method.iter().enumerate() {
        let stream = |is: bool| if is { "stream of " } else { "" };
        let _ = writeln!(
            text,
            "| `{}` | {}{} | {}{} | {} |",
            method.name(),
            stream(method.client_streaming()),
            link(method.input_type()),
            stream(method.server_streaming()),
            link(method.output_type()),
            comments.at(&[path, &[2, index as i32]].concat()),
        );
    }
}

fn message(message: &DescriptorProto, comments: &Comments, path: &[i32], text: &mut String) {
    let _ = write!(text, "\n### {}\n\n", message.name());
    let about = comments.at(path);
    if !about.is_empty() {
        let _ = write!(text, "{about}\n\n");
    }
    if message.field.is_empty() {
        *text += "It has no fields.\n";
        return;
    }
    *text += "| Field | Number | Type | Meaning |\n| --- | --- | --- | --- |\n";
    for (index, field) in message.field.iter().enumerate() {
        let about = comments.at(&[path, &[2, index as i32]].concat());
        let one_of = match (field.proto3_optional(), field.oneof_index) {
            (false, Some(index)) => format!(" (one of `{}`)", message.oneof_decl[index as usize].name()),
            _ => String::new(),
        };
        let _ = writeln!(text, "| `{}`{one_of} | {} | {} | {about} |", field.name(), field.number(), kind(field));
    }
}

fn enumeration(enumeration: &EnumDescriptorProto, comments: &Comments, path: &[i32], text: &mut String) {
    let _ = write!(text, "\n### {}\n\n", enumeration.name());
    let about = comments.at(path);
    if !about.is_empty() {
        let _ = write!(text, "{about}\n\n");
    }
    *text += "| Value | Number | Meaning |\n| --- | --- | --- |\n";
    for (index, value) in enumeration.value.iter().enumerate() {
        let about = comments.at(&[path, &[2, index as i32]].concat());
        let _ = writeln!(text, "| `{}` | {} | {about} |", value.name(), value.number());
    }
}

fn kind(field: &FieldDescriptorProto) -> String {
    let name = match field.r#type() {
        Type::Message | Type::Enum => link(field.type_name()),
        scalar => format!("`{}`", scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase()),
    };
    match field.label() {
        Label::Repeated => format!("repeated {name}"),
        _ if field.proto3_optional() => format!("optional {name}"),
        _ => name,
    }
}

/// A message or enumeration of this package as a link to its heading.
fn link(name: &str) -> String {
    let name = name.rsplit('.').next().unwrap_or(name);
    format!("[{name}](#{})", name.to_lowercase())
}

/// The comments of a file, by the path of what they stand at.
struct Comments(BTreeMap<Vec<i32>, String>);

impl Comments {
    fn of(file: &FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        Self(locations.map(|location| (location.path.clone(), comment(location))).collect())
    }

    /// As one line, which may stand in a table.
    fn at(&self, path: &[i32]) -> &str {
        self.0.get(path).map_or("", String::as_str)
    }
}

/// What stands before it, or else behind it.
fn comment(location: &Location) -> String {
    let said = [location.leading_comments(), location.trailing_comments()];
    let text: Vec<&str> = said.into_iter().flat_map(str::split_whitespace).collect();
    let text = text.join(" ").replace('|', "\\|");
    // A symbol stays as it is.
    let is_word = text.chars().take_while(char::is_ascii_lowercase).count() > 1;
    let (first, rest) = text.split_at(usize::from(is_word));
    let stop = if text.is_empty() || text.ends_with('.') { "" } else { "." };
    format!("{}{rest}{stop}", first.to_uppercase())
}
