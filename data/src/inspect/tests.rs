use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use antiphon_core::ids::Split;
use antiphon_core::spec::{SynthKind, SynthSamples};
use arrow_array::{ArrayRef, BinaryArray, Float64Array, Int32Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use super::*;
use crate::stores::LocalStores;
use crate::synth::Generator;
use crate::synth::write::{WriteOptions, write};

fn parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length");
    let file = File::create(path).expect("a writable folder");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a schema that can be written");
    writer.write(&batch).expect("a writable folder");
    writer.close().expect("a writable folder");
}

async fn inspected(names: &[&Path], options: InspectOptions) -> Result<Inspection, DataError> {
    let names: Vec<String> = names.iter().map(|name| name.display().to_string()).collect();
    inspect(&names, &LocalStores::shared(), &options, &mut |_, _| ()).await
}

#[tokio::test]
async fn generated_files_are_seen_as_they_were_made() {
    let samples = SynthSamples { train: 300, validation: 0, test: 20 };
    let generator = Generator::new(SynthKind::SpokenDigits, 1, samples, 0.2).expect("a possible data set");
    let folder = tempfile::tempdir().expect("a folder");
    let options = WriteOptions { rows_per_shard: Some(100), overwrite: false };
    write(&generator, folder.path(), options, |_| ControlFlow::Continue(())).expect("a writable folder");
    let options = InspectOptions { samples: 2, ..InspectOptions::default() };
    let found = inspected(&[&folder.path().join("train-*.parquet")], options).await.expect("good files");
    let [table] = found.tables.as_slice() else { panic!("one table") };
    assert_eq!((table.rows, table.files.len(), table.files[0].rows, table.files[0].row_groups), (300, 3, 100, 1));
    let features: Vec<&str> = table.columns.iter().map(|column| column.feature.as_str()).collect();
    let expected =
        ["Value(\"string\")", "ClassLabel(10 names)", "Image()", "Audio(sampling_rate=8000)", "Value(\"string\")"];
    assert_eq!(features, expected);
    for column in generator.columns() {
        let missing = (0..300).filter(|index| !generator.has(Split::Train, *index, column)).count() as u64;
        let report = table.columns.iter().find(|report| report.name == column.name()).expect("the column");
        assert_eq!((report.missing, report.missing_rate), (missing, missing as f64 / 300.0));
    }
    let labels = table.labels.as_ref().expect("there are labels");
    assert!(labels.classes.len() == 10 && labels.classes.iter().all(|class| class.rows == 30), "{labels:?}");
    let ids = table.ids.as_ref().expect("there are ids");
    assert_eq!((ids.duplicates, ids.without), (0, 0));
    assert_eq!(table.samples.len(), 2);
    let values: Vec<&ValueReport> = table.samples.iter().flat_map(|s| s.values.iter().map(|v| &v.value)).collect();
    assert!(
        values.iter().any(|value| matches!(value, ValueReport::Image { format: "PNG", width: 28, height: 28, .. }))
    );
    assert!(
        values
            .iter()
            .any(|value| matches!(value, ValueReport::Audio { format: "WAV", rate: 8000, peak, .. } if *peak > 0.1))
    );
}

#[tokio::test]
async fn what_is_wrong_with_rows_is_counted_and_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two) = (folder.path().join("a.parquet"), folder.path().join("b.parquet"));
    let columns = |ids: [Option<&str>; 4]| -> Vec<(&str, ArrayRef)> {
        vec![
            ("key", Arc::new(StringArray::from(ids.to_vec()))),
            ("class", Arc::new(StringArray::from(vec![Some("dog"), None, Some("cat"), Some("dog")]))),
            ("file", Arc::new(BinaryArray::from(vec![Some(b"GIF89a".as_slice()), None, None, None]))),
            ("height", Arc::new(Float64Array::from(vec![1.5, 2.5, 3.5, 4.5]))),
        ]
    };
    parquet(&one, columns([Some("x"), Some("y"), Some("x"), None]));
    parquet(&two, columns([Some("z"), Some("y"), Some("v"), Some("w")]));
    let options = InspectOptions { label: Some("class".to_owned()), id: Some("key".to_owned()), samples: 1 };
    let found = inspected(&[&folder.path().join("*.parquet")], options).await.expect("good files");
    let [table] = found.tables.as_slice() else { panic!("one table") };
    let labels = table.labels.as_ref().expect("labels");
    let classes: Vec<(&str, u64)> = labels.classes.iter().map(|class| (class.label.as_str(), class.rows)).collect();
    assert_eq!((classes, labels.without), (vec![("cat", 2), ("dog", 4)], 2));
    let ids = table.ids.as_ref().expect("ids");
    assert_eq!((ids.duplicates, ids.within_files, ids.without), (2, 1, 1));
    let again: Vec<(&str, u64)> = ids.examples.iter().map(|example| (example.id.as_str(), example.again.1)).collect();
    assert_eq!(again, [("x", 2), ("y", 1)]);
    assert_eq!(table.columns[2].feature, "Value(\"binary\")");
    let ValueReport::Unreadable { error } = &table.samples[0].values[2].value else { panic!("a GIF") };
    assert_eq!(
        error,
        "neither a supported image nor a supported audio file (it begins with `GIF89a`); store it as PNG, JPEG, WAV, \
         FLAC or MP3"
    );
    assert_eq!(table.samples[0].values[3].value, ValueReport::Plain { value: "1.5".to_owned() });
}

#[tokio::test]
async fn files_of_other_columns_are_separate_tables() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two, three) =
        (folder.path().join("1.parquet"), folder.path().join("2.parquet"), folder.path().join("3.parquet"));
    let ids = || -> ArrayRef { Arc::new(Int32Array::from(vec![1, 2])) };
    parquet(&one, vec![("id", ids())]);
    parquet(&two, vec![("id", ids()), ("label", ids())]);
    parquet(&three, vec![("id", ids())]);
    let found = inspected(&[&one, &two, &three], InspectOptions::default()).await.expect("good files");
    let shape: Vec<_> = found.tables.iter().map(|t| (t.files.len(), t.rows, t.labels.is_some())).collect();
    assert_eq!(shape, [(2, 4, false), (1, 2, true)]);
    assert_eq!(found.tables[0].ids.as_ref().map(|ids| (ids.duplicates, ids.within_files)), Some((2, 0)));

    let options = InspectOptions { label: Some("label".to_owned()), ..InspectOptions::default() };
    let refused = inspected(&[&one], options).await.expect_err("it has no labels").to_string();
    assert!(refused.ends_with("there is no column `label`; set `--label` to one of its columns: `id`"), "{refused}");
}
