//! A prediction is a function of checkpoint and sample alone, whatever the options, the other samples and their order.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::support::{antiphon, json_lines, parse_lines, run_to_end};
use antiphon::predictor::Prediction;
use antiphon_core::rng;
use arrow_array::builder::{Float32Builder, ListBuilder};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, UInt32Type};
use arrow_array::{Array as _, ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

const JOB: &str = "
name: animals
seed: 3
data: {train: train.parquet, test: test.parquet, validation: 30%, id: id}
modalities:
  gait: {data: {column: gait}, encoder: {kind: mlp, hidden: [8], dropout: 0.1}}
  shape: {data: {column: shape}, encoder: {kind: mlp, hidden: [4]}}
  words: {data: {column: words}, input: {kind: text, max_tokens: 16}, encoder: {kind: text, width: 8, layers: 1, heads: 2}}
optimizer: {lr: 0.05}
labels: {column: kind, classes: [cat, dog, emu]}
head: {width: 8, optimizer: {kind: sgd, lr: 0.05}}
schedule: {turns: 45, batch: 16}
evaluation: {every: end, chunk: 16}
checkpoints: {every: end}
";
const CLASSES: [&str; 3] = ["cat", "dog", "emu"];
const MODALITIES: [&str; 3] = ["gait", "shape", "words"];
const TEST_ROWS: usize = 41;

/// One row of a file.
#[derive(Clone)]
struct Row {
    id: String,
    kind: Option<&'static str>,
    gait: Option<Vec<f32>>,
    shape: Option<Vec<f32>>,
    words: Option<String>,
}

/// Unordered rows of three classes. Each row lacks some modalities.
fn rows(count: usize, seed: u64) -> Vec<Row> {
    let mut stream = rng::stream(seed, &["animals".into()]);
    let mut vector = |class: usize, width: usize, noise: f64| -> Vec<f32> {
        let centre = |i: usize| if i % 3 == class { 1.0 } else { 0.0 };
        (0..width).map(|i| (centre(i) + noise * rng::normal(&mut stream)) as f32).collect()
    };
    let row = |i: usize| {
        let class = i % 3;
        Row {
            id: format!("s{:03}", i * 37 % 499),
            kind: Some(CLASSES[class]),
            gait: (i % 4 != 1).then(|| vector(class, 6, 0.5)),
            shape: (i % 5 != 2).then(|| vector(class, 3, 1.0)),
            words: (!i.is_multiple_of(3) || i % 4 == 1)
                .then(|| format!("a {} it is {}", CLASSES[(class + i / 20) % 3], i % 7)),
        }
    };
    (0..count).map(row).collect()
}

/// Writes rows with these columns only.
fn write(path: &Path, rows: &[Row], columns: &[&str]) {
    let lists = |of: fn(&Row) -> &Option<Vec<f32>>| -> ArrayRef {
        let mut builder = ListBuilder::new(Float32Builder::new());
        rows.iter().for_each(|row| builder.append_option(of(row).as_ref().map(|row| row.iter().copied().map(Some))));
        Arc::new(builder.finish())
    };
    let all: [(&str, ArrayRef); 5] = [
        ("id", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.id)))),
        ("kind", Arc::new(StringArray::from_iter(rows.iter().map(|row| row.kind)))),
        ("gait", lists(|row| &row.gait)),
        ("shape", lists(|row| &row.shape)),
        ("words", Arc::new(StringArray::from_iter(rows.iter().map(|row| row.words.as_deref())))),
    ];
    let columns = all.into_iter().filter(|(name, _)| columns.contains(name)).map(|(name, array)| (name, array, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length");
    let file = File::create(path).expect("the folder is writable");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a schema that can be written");
    writer.write(&batch).expect("the folder is writable");
    writer.close().expect("the folder is writable");
}

const COLUMNS: [&str; 5] = ["id", "kind", "gait", "shape", "words"];

/// A folder with data, a job trained on them, and its checkpoint. Trained once for all tests.
fn trained() -> &'static (PathBuf, String) {
    static TRAINED: OnceLock<(PathBuf, String)> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("predictions");
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("job.yaml"), JOB).expect("a job file");
        write(&folder.join("train.parquet"), &rows(150, 1), &COLUMNS);
        write(&folder.join("test.parquet"), &rows(TEST_ROWS, 2), &COLUMNS);
        let finished = run_to_end(&folder, &["run", "job.yaml"]);
        let checkpoint = finished["checkpoint"].as_str().expect("a checkpoint").to_owned();
        (folder, checkpoint)
    })
}

/// The standard output of `predict` with these options.
fn predict_text(options: &[&str]) -> String {
    let (folder, checkpoint) = trained();
    let output = antiphon(folder, &["predict", checkpoint]).args(options).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{options:?}: {said}");
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}

fn predict(options: &[&str]) -> Vec<Prediction> {
    read_lines(&predict_text(options))
}

fn read_lines(text: &str) -> Vec<Prediction> {
    text.lines().map(|line| serde_json::from_str(line).expect("a prediction")).collect()
}

fn lambda(prediction: &Prediction, modality: &str) -> f64 {
    weighed(prediction, modality).0
}

fn weighed(prediction: &Prediction, modality: &str) -> (f64, Option<f64>) {
    let weighed = &prediction.modalities[&modality.try_into().expect("a name")];
    (weighed.lambda, weighed.entropy)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-12
}

#[test]
fn predictions_do_not_depend_on_the_order_of_rows_and_files() {
    let (folder, _) = trained();
    let asked = predict_text(&[]);
    let ids: Vec<String> = read_lines(&asked).into_iter().map(|line| line.id).collect();
    assert!(ids.len() == TEST_ROWS && ids.is_sorted());
    let mut shuffled = rows(TEST_ROWS, 2);
    rng::shuffle(&mut rng::stream(9, &[]), &mut shuffled);
    write(&folder.join("shard-1.parquet"), &shuffled[..11], &COLUMNS);
    write(&folder.join("shard-2.parquet"), &shuffled[11..], &COLUMNS);
    assert_eq!(predict_text(&["--data", "shard-*.parquet"]), asked);
    assert_eq!(predict_text(&["--data", "shard-1.parquet", "--data", "shard-2.parquet"]), asked);
    let own = ["--data", "gait=shard-*.parquet", "--data", "words=test.parquet", "--decode-threads", "3"];
    assert_eq!(predict_text(&own), asked);
}

#[test]
fn answers_do_not_depend_on_the_size_of_chunks() {
    let asked = predict(&[]);
    for chunk in ["1", "7", "1000"] {
        let again = predict(&["--chunk", chunk]);
        assert_eq!(again.len(), asked.len());
        for (one, other) in asked.iter().zip(&again) {
            assert_eq!((&one.id, one.label, one.prediction), (&other.id, other.label, other.prediction));
            // Matrix products of another height may round differently, by up to 1e-6 in f32 logits.
            let pairs = one.probabilities.iter().zip(&other.probabilities);
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-6), "{one:?} {other:?}");
            for modality in MODALITIES {
                assert!((lambda(one, modality) - lambda(other, modality)).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn a_missing_or_dropped_modality_has_no_weight() {
    let (folder, _) = trained();
    let by_id: BTreeMap<String, Row> = rows(TEST_ROWS, 2).into_iter().map(|row| (row.id.clone(), row)).collect();
    let asked = predict(&[]);
    for line in &asked {
        let row = &by_id[&line.id];
        let there = [row.gait.is_some(), row.shape.is_some(), row.words.is_some()];
        for (modality, there) in MODALITIES.into_iter().zip(there) {
            let (lambda, entropy) = weighed(line, modality);
            assert_eq!((lambda > 0.0, entropy.is_some()), (there, there), "{line:?}");
        }
        assert!(close(MODALITIES.iter().map(|modality| lambda(line, modality)).sum(), 1.0));
    }
    let without: Vec<Row> = rows(TEST_ROWS, 2).into_iter().map(|row| Row { words: None, ..row }).collect();
    write(&folder.join("without.parquet"), &without, &COLUMNS);
    let dropped = predict_text(&["--drop", "words"]);
    assert_eq!(predict_text(&["--data", "without.parquet"]), dropped);
    let no_column = ["id", "kind", "gait", "shape"];
    write(&folder.join("no-column.parquet"), &without, &no_column);
    assert_eq!(predict_text(&["--data", "no-column.parquet", "--drop", "words"]), dropped);
}

/// The probabilities p of each sample by one modality alone.
fn alone(modality: &str) -> BTreeMap<String, Vec<f64>> {
    let others: Vec<&str> = MODALITIES.into_iter().filter(|other| *other != modality).collect();
    let lines = predict(&["--drop", others[0], "--drop", others[1]]);
    lines.into_iter().map(|line| (line.id, line.probabilities)).collect()
}

/// λ of the modalities of a sample, computed from their entropies.
fn expected_lambdas(rule: &str, tuned: &Value, entropies: &[Option<f64>; 3]) -> Vec<f64> {
    let raw = |m: usize| -> f64 {
        match (rule, entropies[m]) {
            (_, None) => 0.0,
            ("entropy", Some(entropy)) => (-entropy).exp(),
            ("mean", Some(_)) => 1.0,
            ("tuned", Some(_)) => tuned[MODALITIES[m]].as_f64().expect("a weight"),
            (_, Some(_)) => [1.0, 0.5, 2.5][m],
        }
    };
    let raw: Vec<f64> = (0..3).map(raw).collect();
    let sum: f64 = raw.iter().sum();
    if sum > 0.0 {
        return raw.iter().map(|weight| weight / sum).collect();
    }
    let there = entropies.iter().flatten().count() as f64;
    entropies.iter().map(|entropy| entropy.map_or(0.0, |_| 1.0 / there)).collect()
}

#[test]
fn every_fusion_rule_weighs_the_modalities_as_it_says() {
    let (_, checkpoint) = trained();
    let manifest = fs::read_to_string(Path::new(checkpoint).join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let alone: Vec<BTreeMap<String, Vec<f64>>> = MODALITIES.into_iter().map(alone).collect();
    for rule in ["entropy", "mean", "tuned", "gait=1,shape=0.5,words=2.5"] {
        for line in predict(&["--fusion", rule]) {
            let entropies = MODALITIES.map(|modality| weighed(&line, modality).1);
            let lambdas = expected_lambdas(rule, &manifest["fusion_weights"], &entropies);
            let mut raw = vec![0.0; CLASSES.len()];
            for (m, modality) in MODALITIES.into_iter().enumerate() {
                assert!(close(lambda(&line, modality), lambdas[m]), "{rule}: {line:?} {lambdas:?}");
                let Some(own) = alone[m].get(&line.id) else { continue };
                // log p differs from the logits by a constant, which the softmax cancels.
                raw.iter_mut().zip(own).for_each(|(sum, p)| *sum += lambdas[m] * p.ln());
            }
            let sum: f64 = raw.iter().map(|z| z.exp()).sum();
            let fused = raw.iter().map(|z| z.exp() / sum);
            assert!(fused.zip(&line.probabilities).all(|(a, b)| close(a, *b)), "{rule}: {line:?}");
        }
    }
}

fn read_parquet(path: &Path) -> Vec<Prediction> {
    let file = File::open(path).expect("it is there");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("Parquet");
    let mut lines = Vec::new();
    for batch in reader {
        let batch = batch.expect("a batch");
        let column = |name: &str| Arc::clone(batch.column_by_name(name).unwrap_or_else(|| panic!("no {name}")));
        let number = |name: &str, row: usize| {
            let column = column(name);
            column.is_valid(row).then(|| column.as_primitive::<Float64Type>().value(row))
        };
        let class = |name: &str, row: usize| {
            let column = column(name);
            column.is_valid(row).then(|| column.as_primitive::<UInt32Type>().value(row))
        };
        let text = |name: &str, row: usize| {
            let column = column(name);
            column.is_valid(row).then(|| column.as_string::<i32>().value(row).to_owned())
        };
        for row in 0..batch.num_rows() {
            let modality = |name: &str| {
                let lambda = number(&format!("lambda_{name}"), row).expect("never null");
                let entropy = number(&format!("entropy_{name}"), row);
                let name = name.try_into().expect("a name");
                (name, antiphon::predictor::Weighed { lambda, entropy })
            };
            lines.push(Prediction {
                id: text("id", row).expect("never null"),
                label: class("label", row),
                label_class: Some(text("label_class", row)),
                prediction: class("prediction", row).expect("never null"),
                prediction_class: Some(text("prediction_class", row)),
                probabilities: column("probabilities")
                    .as_fixed_size_list()
                    .value(row)
                    .as_primitive::<Float64Type>()
                    .values()
                    .to_vec(),
                modalities: MODALITIES.into_iter().map(modality).collect(),
            });
        }
    }
    lines
}

#[test]
fn json_and_parquet_agree_and_files_are_not_overwritten_unasked() {
    let (folder, checkpoint) = trained();
    let asked = predict_text(&[]);
    for name in ["out.jsonl", "out.parquet"] {
        let arguments = ["predict", checkpoint.as_str(), "--output", name];
        let (code, said) = json_lines(folder, &arguments);
        assert_eq!((code, &said[0]["event"], &said[0]["samples"]), (Some(0), &"predicted".into(), &TEST_ROWS.into()));
        let (code, said) = json_lines(folder, &arguments);
        let refusal = format!("`{name}` already exists; --force overwrites it");
        assert_eq!((code, &said[0]["error"]), (Some(2), &refusal.into()));
        assert_eq!(json_lines(folder, &[&arguments[..], &["--force"]].concat()).0, Some(0));
    }
    assert_eq!(fs::read_to_string(folder.join("out.jsonl")).expect("it is there"), asked);
    assert_eq!(read_parquet(&folder.join("out.parquet")), read_lines(&asked));
    let left: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{left:?}");
}

/// The accuracy of predictions, given as lines.
fn accuracy(lines: &[Prediction]) -> f64 {
    lines.iter().filter(|line| line.label == Some(line.prediction)).count() as f64 / lines.len() as f64
}

fn mean(numbers: impl Iterator<Item = f64>) -> f64 {
    let numbers: Vec<f64> = numbers.collect();
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

#[test]
fn an_evaluation_is_what_the_predictions_come_to() {
    let (folder, checkpoint) = trained();
    let evaluate = |options: &[&str]| {
        let (code, mut lines) = json_lines(folder, &[&["eval", checkpoint.as_str()], options].concat());
        let line = lines.pop().expect("a line");
        assert_eq!((code, lines.len(), &line["event"]), (Some(0), 0, &"evaluation".into()), "{line}");
        line
    };
    for options in [&[][..], &["--drop", "gait"], &["--fusion", "gait=1,shape=0,words=3"], &["--split", "validation"]] {
        let report = evaluate(options);
        let lines = predict(options);
        assert_eq!(report["samples"], lines.len());
        let fused = &report["fused"][report["fusion"].as_str().expect("a rule")];
        assert!(close(fused["accuracy"].as_f64().expect("a number"), accuracy(&lines)));
        let right = |cell: &&Value| cell[0] == cell[1];
        let cells = fused["confusion"].as_array().expect("cells").iter().filter(right);
        let right: u64 = cells.map(|cell| cell[2].as_u64().expect("a count")).sum();
        assert_eq!(right, lines.iter().filter(|line| line.label == Some(line.prediction)).count() as u64);
        for (name, modality) in report["modalities"].as_object().expect("modalities") {
            let entropy = mean(lines.iter().filter_map(|line| weighed(line, name).1));
            assert!(close(modality["entropy"].as_f64().expect("a number"), entropy), "{name}");
        }
        assert_eq!(report["modalities"].get("gait").is_none(), options.contains(&"--drop"));
    }
    let (report, lines) = (evaluate(&[]), predict(&[]));
    for name in MODALITIES {
        let lambda = mean(lines.iter().map(|line| lambda(line, name)));
        assert!(close(report["modalities"][name]["lambda"].as_f64().expect("a number"), lambda), "{name}");
    }
    // The run itself evaluated this checkpoint on the test split.
    assert_eq!(report["checkpoint"], checkpoint.as_str());
    let text = antiphon(folder, &["eval", checkpoint, "--confusion", "--drop", "shape"]).output().expect("it starts");
    let text = String::from_utf8(text.stdout).expect("UTF-8");
    assert!(text.contains("fused, entropy *") && text.contains("without shape") && text.contains("emu"), "{text}");
}

#[test]
fn samples_need_no_labels() {
    let (folder, _) = trained();
    let unlabelled: Vec<Row> = rows(TEST_ROWS, 2).into_iter().map(|row| Row { kind: None, ..row }).collect();
    write(&folder.join("null-labels.parquet"), &unlabelled, &COLUMNS);
    write(&folder.join("no-labels.parquet"), &unlabelled, &["id", "gait", "shape", "words"]);
    let ignored = predict_text(&["--no-labels"]);
    assert_eq!(predict_text(&["--data", "null-labels.parquet"]), ignored);
    assert_eq!(predict_text(&["--data", "no-labels.parquet"]), ignored);
    let forget = |line: Prediction| Prediction { label: None, label_class: Some(None), ..line };
    let asked: Vec<Prediction> = predict(&[]).into_iter().map(forget).collect();
    assert_eq!(read_lines(&ignored), asked);
    // A label in the file of one modality is sufficient.
    let mixed = predict(&["--data", "gait=no-labels.parquet"]);
    assert!(mixed.iter().any(|line| line.label.is_some()));
}

#[test]
fn options_that_do_not_fit_are_usage_errors() {
    let (folder, checkpoint) = trained();
    fs::write(folder.join("broken.parquet"), "PAR1 and nothing else").expect("it can be written");
    let cases: [(&str, &[&str], &str); 13] = [
        (
            "eval",
            &["--drop", "smell"],
            "--drop names `smell`, but the checkpoint's modalities are `gait`, `shape`, `words`",
        ),
        ("eval", &["--drop", "gait", "--drop", "words", "--drop", "shape"], "--drop leaves no modality"),
        ("predict", &["--data", "smell=x.parquet"], "--data names `smell`"),
        ("predict", &["--fusion", "gait=1"], "--fusion gives no weight to `shape`"),
        ("predict", &["--fusion", "gait=1,shape=1,words=1,smell=1"], "--fusion names `smell`"),
        ("predict", &["--output", "out.csv"], "use .jsonl for JSON lines, or .parquet"),
        ("predict", &["--output", "nowhere/out.jsonl"], "there is no folder `nowhere`"),
        ("predict", &["--data", "nothing-*.parquet"], "no file matches `nothing-*.parquet`"),
        ("predict", &["--data", "broken.parquet"], "broken.parquet"),
        (
            "predict",
            &["--set", "modalities.gait.data.column=run"],
            "pass `--set modalities.gait.data.column=COLUMN` to name the column of `gait`",
        ),
        ("predict", &["--set", "head.widht=4"], "head.widht"),
        (
            "predict",
            &["--set", "labels.classes=2"],
            "the checkpoint's head has shape [3, 8], but the job has 2 classes",
        ),
        ("eval", &["--set", "labels.column=sort"], "pass `--set labels.column=COLUMN` to name the column of `gait`"),
    ];
    for (command, options, message) in cases {
        let (code, lines) = json_lines(folder, &[&[command, checkpoint.as_str()], options].concat());
        let error = lines[0]["error"].as_str().expect("an error");
        assert!(
            code == Some(2) && lines.len() == 1 && error.contains(message),
            "{command} {options:?}: {code:?} {error}"
        );
    }
    for fusion in ["sum", "gait=-1", "gait=0"] {
        let output = antiphon(folder, &["eval", checkpoint, "--fusion", fusion]).output().expect("it starts");
        assert_eq!((output.status.code(), parse_lines(&output).len()), (Some(2), 0));
    }
    let (code, lines) = json_lines(folder, &["eval", "no/such/folder"]);
    assert_eq!(code, Some(2), "{lines:?}");
}

#[test]
fn tuned_weights_that_are_not_there_are_not_made_up() {
    let (folder, _) = trained();
    let arguments =
        ["run", "job.yaml", "--state", "untuned", "--set", "data.validation=0", "--set", "schedule.turns=0"];
    let untuned = run_to_end(folder, &arguments)["checkpoint"].as_str().expect("a checkpoint").to_owned();
    for command in ["eval", "predict"] {
        let (code, lines) = json_lines(folder, &[command, &untuned, "--fusion", "tuned"]);
        let error = lines[0]["error"].as_str().expect("an error");
        assert!(code == Some(2) && error.contains("has no tuned weights"), "{code:?} {error}");
        let (code, lines) = json_lines(folder, &[command, &untuned, "--split", "validation"]);
        let error = lines[0]["error"].as_str().expect("an error");
        assert!(code == Some(2) && error.contains("the job has no validation split"), "{code:?} {error}");
    }
}
