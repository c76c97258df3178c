//! Laws of the job specification.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::*;
use crate::ids::{EncoderName, JobName, ModalityName};

mod generate;

fn read(text: &str) -> Result<JobSpec, SpecErrors> {
    parse(text, "job.yaml", &[], &|_| None)
}

fn read_with(text: &str, overrides: &[&str]) -> Result<JobSpec, SpecErrors> {
    let overrides: Vec<Override> = overrides.iter().map(|text| Override::from(*text)).collect();
    parse(text, "job.yaml", &overrides, &|_| None)
}

const SMALL: &str = "
name: small
data: {train: a.parquet}
modalities: {audio: , image: {}}
labels: 10
";

#[test]
fn what_is_written_out_is_read_back() {
    for seed in 0..2000 {
        let spec = generate::spec(seed);
        let json = spec.to_json();
        let back = JobSpec::from_json(&json).unwrap_or_else(|errors| panic!("seed {seed}: {errors}\n{json}"));
        assert_eq!(back, spec, "seed {seed}: {json}");
        let by_serde: JobSpec = serde_json::from_str(&json).expect("JSON");
        assert_eq!(by_serde, spec, "seed {seed}");
        assert_eq!(serde_json::to_string(&spec).expect("JSON"), json, "one spelling");
    }
}

#[test]
fn the_explanation_is_the_job() {
    for seed in 0..300 {
        let spec = generate::spec(seed);
        let json = spec.to_json();
        let (_, fields) = parse_and_explain(&json, "job", &[], &|_| None).expect("a job");
        let mut explained: BTreeMap<String, String> = BTreeMap::new();
        for field in &fields {
            if field.given.is_none() {
                assert!(field.key.ends_with(".input.frames"), "seed {seed}: {} was written out", field.key);
                assert_eq!(field.value.to_string(), "1", "seed {seed}: only single images leave it out");
                continue;
            }
            let plain: serde_json::Value = serde_json::from_str(&field.value.to_string()).expect("JSON");
            leaves(&field.key, &plain, &mut explained);
        }
        let mut written = BTreeMap::new();
        let whole: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        leaves("", &whole, &mut written);
        let written: BTreeMap<_, _> =
            written.into_iter().map(|(key, value)| (key, value.replace("$${", "${"))).collect();
        assert_eq!(explained, written, "seed {seed}");
    }
}

/// Every value that is not an object, under its path; modalities by name.
fn leaves(path: &str, value: &serde_json::Value, into: &mut BTreeMap<String, String>) {
    match value {
        serde_json::Value::Object(entries) => {
            for (key, value) in entries
                .iter()
                .filter(|(key, _)| path.is_empty() || !(path.starts_with("modalities.") && *key == "name"))
            {
                leaves(&document::join(path, key), value, into);
            }
        }
        serde_json::Value::Array(items) if path == "modalities" => {
            for item in items {
                leaves(&document::join(path, item["name"].as_str().expect("a name")), item, into);
            }
        }
        other => {
            into.insert(path.to_owned(), other.to_string());
        }
    }
}

#[test]
fn a_default_is_what_its_own_text_says() {
    let (given, fields) = parse_and_explain(SMALL, "job.yaml", &[], &|_| None).expect("a job");
    let defaults: Vec<&FieldReport> = fields.iter().filter(|field| field.given.is_none()).collect();
    assert!(defaults.len() > 40);
    for field in &defaults {
        let set = format!("{}={}", field.key, field.value);
        assert_eq!(read_with(SMALL, &[&set]).as_ref(), Ok(&given), "{set}");
    }
}

#[test]
fn every_explained_field_can_be_set_and_unset() {
    let (_, fields) = parse_and_explain(SMALL, "job.yaml", &[], &|_| None).expect("a job");
    for field in fields.iter().filter(|field| field.key.starts_with("modalities.audio.")) {
        let set = format!("{}={{}}", field.key);
        let errors = read_with(SMALL, &[&set]).expect_err(&set);
        assert_eq!(errors.errors.len(), 1, "{errors}");
        assert!(errors.to_string().starts_with(&format!("--set {set}: {}: `{{}}` is not ", field.key)), "{errors}");
    }
}

#[test]
fn examples_are_jobs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("the examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = fs::read_to_string(&path).expect("text");
            let lookup = |name: &str| Some(format!("/data/{name}"));
            if let Err(errors) = parse(&text, &path.display().to_string(), &[], &lookup) {
                panic!("{errors}");
            }
            count += 1;
        }
    }
    assert!(count >= 3);
}

#[test]
fn a_job_for_one_file_with_two_columns_fits_on_ten_lines() {
    let job = "name: digits\ndata: {train: digits.parquet}\nmodalities: [audio, image]\nlabels: 10\n";
    assert!(job.lines().count() <= 10);
    let spec = read(job).expect("a job");
    let columns: Vec<_> = spec
        .modalities
        .iter()
        .map(|modality| match &modality.data {
            DataSpec::Parquet { column, train, .. } => (column.as_str(), train[0].as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(columns, [("audio", "digits.parquet"), ("image", "digits.parquet")]);
}

#[test]
fn short_forms_mean_the_long_ones() {
    let pairs = [
        ("labels=10", "labels={classes: 10}"),
        ("labels=[a, b]", "labels={classes: [a, b]}"),
        ("modalities.audio.encoder=cnn", "modalities.audio.encoder={kind: cnn}"),
        ("modalities.audio.input=audio", "modalities.audio.input={kind: audio}"),
        ("modalities.audio.optimizer=adamw", "modalities.audio.optimizer.kind=adamw"),
        ("head.projection=off", "head.projection.kind=off"),
        ("optimizer.schedule=cosine", "optimizer={schedule: {kind: cosine}}"),
        ("modalities=[audio, {name: image, encoder: cnn}]", "modalities={audio: {}, image: {encoder: cnn}}"),
        ("modalities.audio.encoder.weights=a.pth", "modalities.audio.encoder.weights={from: a.pth, strict: true}"),
        ("modalities.audio.encoder.freeze=conv1.*", "modalities.audio.encoder={freeze: [conv1.*]}"),
        ("modalities.audio.encoder=vit", "modalities.audio.encoder={kind: vit, size: small, patch: 16, pooling: cls}"),
        ("modalities.audio.encoder=bert", "modalities.audio.encoder={kind: bert, size: base, dropout: 0.1}"),
        ("data.validation=10%", "data.validation=0.1"),
        ("data.train=b.parquet", "data.train=[b.parquet]"),
    ];
    for (short, long) in pairs {
        let (short_spec, long_spec) = (read_with(SMALL, &[short]), read_with(SMALL, &[long]));
        assert!(short_spec.is_ok(), "{short_spec:?}");
        assert_eq!(short_spec, long_spec, "{short}");
    }
}

#[test]
fn an_encoder_of_any_kind_may_begin_from_weights() {
    for kind in ["auto", "mlp", "cnn", "text", "resnet18", "resnet34", "resnet50", "vit", "bert"] {
        let digits = "0123456789abcdef".repeat(4);
        let set = format!(
            "modalities.audio.encoder={{kind: {kind}, weights: {{from: s3://b/w, sha256: {digits}, strict: false}}, \
             freeze: ['a.*', 'b.?'], adapter_lr: 10}}"
        );
        let spec = read_with(SMALL, &[&set]).expect(kind);
        let weights = WeightsSpec { from: "s3://b/w".to_owned(), sha256: Some(digits), strict: false };
        let freeze = vec!["a.*".to_owned(), "b.?".to_owned()];
        let expected = TransferSpec { weights: Some(weights), freeze, adapter_lr: 10.0 };
        assert_eq!((spec.modalities[0].encoder.kind(), &spec.modalities[0].transfer), (kind, &expected));
        assert_eq!(spec.modalities[1].transfer, TransferSpec::default());
    }
}

#[test]
fn an_encoder_of_any_kind_may_compute_in_either_precision() {
    for kind in ["auto", "mlp", "cnn", "text", "resnet18", "resnet34", "resnet50", "vit", "bert"] {
        for (name, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
            let set = format!("modalities.audio.encoder={{kind: {kind}, precision: {name}}}");
            let spec = read_with(SMALL, &[&set]).expect(kind);
            assert_eq!((spec.modalities[0].precision, spec.modalities[0].precision.name()), (precision, name));
            assert_eq!(spec.modalities[1].precision, Precision::F32, "where nothing is said");
        }
    }
}

#[test]
fn frames_are_written_only_for_clips() {
    let json = |set: &str| read_with(SMALL, &[set]).expect("a job").to_json();
    let single = json("modalities.image.input={kind: image, height: 8, width: 8}");
    assert!(single.contains(r#""input":{"kind":"image","height":8,"width":8,"channels":3},"#), "{single}");
    assert_eq!(single, json("modalities.image.input={kind: image, height: 8, width: 8, frames: 1}"));
    let clips = json("modalities.image.input={kind: image, height: 8, width: 8, frames: 3}");
    assert!(clips.contains(r#""input":{"kind":"image","height":8,"width":8,"channels":3,"frames":3},"#), "{clips}");
    let input: InputSpec =
        serde_json::from_str(r#"{"kind":"image","height":8,"width":8,"channels":3}"#).expect("an input");
    assert_eq!(serde_json::to_string(&input).expect("JSON"), r#"{"kind":"image","height":8,"width":8,"channels":3}"#);
}

#[test]
fn a_modality_may_be_called_weights() {
    let spec = read("name: n\ndata: {train: a}\nlabels: 2\nmodalities: {weights: {encoder: cnn}}").expect("a job");
    assert_eq!(spec.modalities[0].encoder.kind(), "cnn");
}

#[test]
fn order_in_the_file_is_the_order_of_the_cycle() {
    let spec =
        read("name: n\ndata: {train: a}\nlabels: 2\nmodalities: {text: {}, audio: {}, image: {}}").expect("a job");
    let names: Vec<&str> = spec.modalities.iter().map(|modality| modality.name.as_str()).collect();
    assert_eq!(names, ["text", "audio", "image"]);
}

#[test]
fn a_modality_inherits_from_the_job_unless_its_kind_differs() {
    let spec = read(
        "
name: n
labels: 2
data: {train: a.parquet, id: key}
optimizer: {kind: sgd, lr: 0.5, momentum: 0.5}
modalities:
  one: {}
  two: {data: {column: c}, optimizer: {lr: 0.1}}
  a: {data: {source: synth, kind: features}, optimizer: adamw}
",
    )
    .expect("a job");
    let [one, two, a] = spec.modalities.as_slice() else { panic!("three modalities") };
    let sgd = OptimizerRule::Sgd { momentum: 0.5, weight_decay: 1e-4 };
    assert_eq!((&one.optimizer.rule, one.optimizer.lr), (&sgd, 0.5));
    assert_eq!((&two.optimizer.rule, two.optimizer.lr), (&sgd, 0.1));
    assert_eq!(a.optimizer.lr, 1e-3, "another rule starts from its own defaults");
    assert!(matches!(&two.data, DataSpec::Parquet { column, id: Some(id), .. } if column == "c" && id == "key"));
    assert!(matches!(&a.data, DataSpec::Synth { kind: SynthKind::Features, .. }));
}

#[test]
fn overrides_create_mappings_and_the_last_one_counts() {
    let spec = read_with(
        SMALL,
        &["schedule.epochs=3", "schedule.batch=8", "schedule.batch=16", "modalities.image.encoder.kind=cnn", "seed=9"],
    )
    .expect("a job");
    assert_eq!((spec.schedule.length, spec.schedule.batch, spec.seed), (Length::Epochs(3), 16, 9));
    assert_eq!(spec.modalities[1].encoder.kind(), "cnn");
}

#[test]
fn turns_set_by_override_replace_epochs_and_back() {
    let epochs = format!("{SMALL}schedule: {{epochs: 5}}");
    let turns = format!("{SMALL}schedule: {{turns: 5}}");
    assert_eq!(read_with(&epochs, &["schedule.turns=0"]).expect("a job").schedule.length, Length::Turns(0));
    assert_eq!(read_with(&turns, &["schedule.epochs=7"]).expect("a job").schedule.length, Length::Epochs(7));
}

#[test]
fn a_resolved_job_can_be_overridden_by_modality_name() {
    let json = read(SMALL).expect("a job").to_json();
    let spec = read_with(&json, &["modalities.image.optimizer.lr=0.25", "schedule.turns=4"]).expect("a job");
    assert_eq!(spec.modalities[1].optimizer.lr, 0.25);
    assert_eq!(spec.schedule.length, Length::Turns(4));
}

#[test]
fn names_that_other_languages_take_for_truth_values_stay_names() {
    let spec = read_with(SMALL, &["labels=[no, yes, on, 1, 1.0, true]"]).expect("a job");
    let names = ["no", "yes", "on", "1", "1.0", "true"].map(String::from).to_vec();
    assert_eq!(spec.labels.classes, Classes::Names(names));
}

#[test]
fn variables_expand_before_values_are_read() {
    let text = "name: n\ndata: {train: \"${DATA}/x-*.parquet\"}\nmodalities: [audio]\nlabels: ${N:-3}\nschedule: {batch: \"${B}\"}";
    let lookup = |name: &str| match name {
        "DATA" => Some("s3://b".to_owned()),
        "B" => Some("32".to_owned()),
        _ => None,
    };
    let spec = parse(text, "job.yaml", &[], &lookup).expect("a job");
    assert_eq!(spec.labels.classes, Classes::Count(3));
    assert_eq!(spec.schedule.batch, 32);
    assert!(matches!(&spec.modalities[0].data, DataSpec::Parquet { train, .. } if train == &["s3://b/x-*.parquet"]));
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_no_matter() {
    let windows = format!("\u{feff}{}", SMALL.replace('\n', "\r\n"));
    assert_eq!(read(&windows), read(SMALL));
    let errors = read("\u{feff}nam: x").expect_err("an unknown key");
    assert!(errors.to_string().starts_with("job.yaml:1:1: "), "{errors}");
}

#[test]
fn an_error_locates_its_value_after_other_alphabets() {
    let errors = read_with(&format!("# ✓ é\n{SMALL}head: {{width: é}}"), &[]).expect_err("a word");
    assert_eq!(errors.to_string(), "job.yaml:7:15: head.width: `é` is not a whole number from 1 to 16384");
}

#[test]
fn reading_is_bounded() {
    let huge = format!("name: {}", "x".repeat(2 << 20));
    let wide = format!("a: [{}]", "1,".repeat(100_000));
    let long_key = format!("{}: 1", "k".repeat(300));
    let deep_block: String = (0..200).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    let copies = format!("a: &a \"{}\"\nb: [{}]", "x".repeat(500_000), "*a,".repeat(10_000));
    for text in [&huge, &wide, &long_key, &deep_block, &copies, &"[".repeat(100_000), &"- ".repeat(100_000)] {
        let errors = read(text).expect_err("beyond bounds");
        assert_eq!(errors.errors.len(), 1, "{errors}");
        assert!(errors.to_string().len() < 300, "{errors}");
    }
    let many: String = (0..5000).map(|n| format!("key{n}: 1\n")).collect();
    assert_eq!(read(&many).expect_err("unknown keys").errors.len(), 100);
    let path = format!("{}=1", vec!["a"; 50_000].join("."));
    assert!(read_with(SMALL, &[&path]).is_err());
}

/// Truncating valid jobs or swapping bytes in them gives jobs or errors with locations, never a panic.
#[test]
fn damaged_jobs_are_refused_calmly() {
    let texts = [include_str!("../../../../examples/spoken-digits.yaml").to_owned(), generate::spec(5).to_json()];
    for (n, text) in texts.iter().enumerate() {
        let characters: Vec<char> = text.chars().collect();
        for seed in 0..1500_u64 {
            let mut dice = generate::Dice::new(seed * 2 + n as u64);
            let mut damaged = characters.clone();
            for _ in 0..=dice.below(3) {
                let at = dice.below(damaged.len().max(1) as u64) as usize;
                if damaged.is_empty() {
                    break;
                }
                match dice.below(4) {
                    0 => drop(damaged.remove(at)),
                    1 => damaged.insert(
                        at,
                        *dice
                            .pick(&['{', '}', '[', ']', ':', '-', '"', '\n', '\t', '&', '*', '!', '%', '$', '\0', ' ']),
                    ),
                    2 => damaged.truncate(at.max(1)),
                    _ => damaged.swap(at, 0),
                }
            }
            let damaged: String = damaged.into_iter().collect();
            if let Err(errors) = read(&damaged) {
                assert!(!errors.errors.is_empty(), "{damaged}");
            }
        }
    }
}

#[test]
fn fields_are_listed_once() {
    let (_, fields) = parse_and_explain(SMALL, "job.yaml", &[], &|_| None).expect("a job");
    let keys: BTreeSet<&str> = fields.iter().map(|field| field.key.as_str()).collect();
    assert_eq!(keys.len(), fields.len());
    let text = explain_text(&fields, "job.yaml");
    assert!(text.contains("modalities.audio.optimizer.lr: 0.001  (default)\n    the learning rate\n"), "{text}");
    assert!(text.contains("labels.classes: 10  (job.yaml:5)\n"), "{text}");
    assert!(text.contains("schedule.batch: 64 samples  (default)\n"), "{text}");
}

const OWN_ENCODER: &str = "
name: own
modalities:
  audio:
    data: {source: parquet, train: a.parquet}
    encoder: {kind: tcn, options: {channels: [16, 32], dropout: 0.5, causal: true, norm: group, quoted: '8'}}
labels: 10
";

fn knowing(names: &[&str]) -> KnownEncoders {
    let names = names.iter().map(|name| EncoderName::try_from(*name).expect("a name"));
    KnownEncoders::Registered(names.collect())
}

#[test]
fn a_registered_encoder_has_its_own_options() {
    let (spec, _) = parse_knowing(OWN_ENCODER, "job.yaml", &[], &|_| None, knowing(&["tcn"])).expect("a job");
    let EncoderSpec::Custom { name, options } = &spec.modalities[0].encoder else { panic!("{spec:?}") };
    assert_eq!(name.as_str(), "tcn");
    let expected = [
        ("causal", OptionValue::Flag(true)),
        ("channels", OptionValue::List(vec![OptionValue::Whole(16), OptionValue::Whole(32)])),
        ("dropout", OptionValue::Number(0.5)),
        ("norm", OptionValue::Text("group".to_owned())),
        ("quoted", OptionValue::Text("8".to_owned())),
    ];
    assert_eq!(*options, expected.map(|(name, value)| (name.to_owned(), value)).into());
    // The coordinator accepts it, since it builds no encoder.
    assert_eq!(JobSpec::from_json(&spec.to_json()).expect("the same job"), spec);
}

#[test]
fn an_encoder_that_is_not_registered_is_refused() {
    let refused = |names: &[&str]| {
        let error =
            parse_knowing(OWN_ENCODER, "job.yaml", &[], &|_| None, knowing(names)).expect_err("it is not known");
        error.to_string()
    };
    let plain = refused(&[]);
    assert!(
        plain.contains("encoder.kind: `tcn` is not built into this program, which has the encoders `auto`"),
        "{plain}"
    );
    assert!(plain.contains("use the program that registers it"), "{plain}");
    assert!(refused(&["tcn2"]).contains("`bert`, `tcn2`; did you mean `tcn2`?"), "{}", refused(&["tcn2"]));
}
