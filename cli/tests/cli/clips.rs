//! Clips end to end: from files to a run, and from its checkpoint to predictions.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::support::{antiphon, folder_with, json_lines, run_to_end};
use antiphon_core::ids::Split;
use antiphon_core::spec::{SynthKind, SynthSamples};
use antiphon_data::RawValue;
use antiphon_data::synth::Generator;
use arrow_array::builder::{BinaryBuilder, ListBuilder};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::Value;

const JOB: &str = "
name: clips
seed: 2
data: {train: train.parquet, test: test.parquet, validation: 0, id: id}
modalities:
  clip: {input: {kind: image, height: 14, width: 14, channels: 1, frames: 3}, encoder: {kind: cnn, channels: [4, 8]}}
  word: {input: {kind: text, max_tokens: 8}, encoder: {kind: text, width: 8, layers: 1, heads: 2}}
optimizer: {lr: 0.05}
labels: 10
head: {width: 8, optimizer: {kind: sgd, lr: 0.05}}
schedule: {turns: 12, batch: 8}
checkpoints: {every: end}
";

/// Rows with a clip of 1 to 5 digits, which every fourth row lacks, and a word.
fn write(path: &Path, split: Split, rows: usize) {
    let samples = SynthSamples { train: 200, validation: 0, test: 200 };
    let generator = Generator::new(SynthKind::SpokenDigits, 1, samples, 0.0).expect("a possible data set");
    let image = generator.column("image").expect("a column of images");
    let (mut number, mut labels) = (0, Vec::new());
    let mut clips = ListBuilder::new(BinaryBuilder::new());
    for row in 0..rows {
        for _ in 0..=row % 5 {
            let digit = generator.row(split, number, image);
            number += 1;
            let Some(RawValue::Bytes(png)) = digit.value else { panic!("an image") };
            if row % 4 != 3 {
                clips.values().append_value(&png);
            }
            labels.resize(row + 1, i64::from(digit.label));
        }
        clips.append(row % 4 != 3);
    }
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("{:03}", row * 37 % 101))))),
        ("label", Arc::new(Int64Array::from_iter_values(labels.iter().copied()))),
        ("clip", Arc::new(clips.finish())),
        ("word", Arc::new(StringArray::from_iter_values(labels.iter().map(|label| format!("word {label}"))))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)));
    let batch = batch.expect("columns of one length");
    let file = File::create(path).expect("the folder is writable");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a schema that can be written");
    writer.write(&batch).expect("the folder is writable");
    writer.close().expect("the folder is writable");
}

fn folder() -> tempfile::TempDir {
    let folder = folder_with(JOB);
    write(&folder.path().join("train.parquet"), Split::Train, 40);
    write(&folder.path().join("test.parquet"), Split::Test, 13);
    folder
}

#[test]
fn a_job_of_clips_has_one_digest_and_keeps_its_frame_count() {
    let folder = folder();
    let run = |arguments: &[&str]| run_to_end(folder.path(), &[&["run", "job.yaml"][..], arguments].concat());
    let whole = run(&["--state", "whole"]);
    let spooled = run(&["--state", "spooled", "--decode-threads", "3", "--data-memory", "0"]);
    assert_eq!(whole["digest"], spooled["digest"]);
    run(&["--state", "resumed", "--set", "schedule.turns=5"]);
    assert_eq!(run(&["--state", "resumed", "--resume"])["digest"], whole["digest"]);
    assert_ne!(run(&["--state", "one", "--set", "modalities.clip.input.frames=1"])["digest"], whole["digest"]);

    let checkpoint = whole["checkpoint"].as_str().expect("a checkpoint");
    let answers = |arguments: &[&str]| -> Vec<Value> {
        let all = [&["predict", checkpoint, "--data", "test.parquet"][..], arguments].concat();
        let (code, lines) = json_lines(folder.path(), &all);
        assert_eq!((code, lines.len()), (Some(0), 13), "{lines:#?}");
        lines
    };
    let first = answers(&[]);
    assert_eq!(answers(&["--chunk", "1"]), first);
    // Even if `--set` changes the job, frames are selected as in training.
    assert_eq!(answers(&["--set", "modalities.clip.input.frames=1"]), first);
    let (code, lines) = json_lines(folder.path(), &["eval", checkpoint]);
    assert_eq!(code, Some(0), "{lines:#?}");
    let evaluated = &lines.last().expect("a line")["modalities"]["clip"]["samples"];
    assert_eq!(evaluated, &Value::from(10), "{lines:#?}");
}

#[test]
fn clips_are_shown_for_what_they_are() {
    let folder = folder();
    let arguments = ["data", "inspect", "test.parquet", "--samples", "2"];
    let output = antiphon(folder.path(), &arguments).output().expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("clip    Sequence(Image())"), "{text}");
    assert!(text.contains("clip   1 frame, in the middle PNG, 28 × 28 pixels, "), "{text}");
    assert!(text.contains("clip   2 frames, in the middle PNG, 28 × 28 pixels, "), "{text}");
}
