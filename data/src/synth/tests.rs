use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use antiphon_core::spec::{DataSpec, JobSpec, ModalitySpec, ValidationSource, parse};
use sha2::{Digest, Sha256};

use super::write::{WriteError, WriteOptions, write};
use super::*;
use crate::stores::LocalStores;
use crate::{Dataset, OpenOptions, Preprocessor};

const KINDS: [SynthKind; 2] = [SynthKind::SpokenDigits, SynthKind::Features];
const SPLITS: [Split; 3] = [Split::Train, Split::Validation, Split::Test];
const SAMPLES: SynthSamples = SynthSamples { train: 60, validation: 20, test: 30 };

fn generator(kind: SynthKind, seed: u64, missing: f64) -> Generator {
    Generator::new(kind, seed, SAMPLES, missing).expect("a data set that is possible")
}

/// All rows of all columns of the first `rows` samples of a split.
fn rows(generator: &Generator, split: Split, rows: u64) -> Vec<RawRow> {
    let columns = generator.columns();
    (0..rows).flat_map(|index| columns.iter().map(move |column| generator.row(split, index, *column))).collect()
}

#[test]
fn a_row_is_a_function_of_seed_split_and_index() {
    for kind in KINDS {
        let first = generator(kind, 5, 0.2);
        let forwards = rows(&first, Split::Train, 12);
        let again = generator(kind, 5, 0.2);
        let (last, columns) = (11, again.columns());
        let mut backwards: Vec<RawRow> = Vec::new();
        for index in (0..=last).rev() {
            backwards.extend(columns.iter().rev().map(|column| again.row(Split::Train, index, *column)));
        }
        backwards.reverse();
        assert_eq!(forwards, backwards, "order of access");
        // Another size of the data set, or another share of missing values, changes no existing value.
        let samples = SynthSamples { train: 1, validation: 0, test: 0 };
        let other = Generator::new(kind, 5, samples, 0.0).expect("a data set that is possible");
        for (row, full) in forwards.iter().zip(rows(&other, Split::Train, 12)) {
            assert_eq!((&row.id, row.label), (&full.id, full.label));
            assert!(row.value.is_none() || row.value == full.value);
        }
        assert_ne!(forwards, rows(&generator(kind, 6, 0.2), Split::Train, 12), "another seed");
    }
}

#[test]
fn splits_share_no_id_and_no_value() {
    for kind in KINDS {
        let generator = generator(kind, 1, 0.0);
        let (mut ids, mut values, mut count) = (BTreeSet::new(), BTreeSet::new(), 0);
        for split in SPLITS {
            for index in 0..20 {
                for column in generator.columns().iter().filter(|column| column.kind() != ColumnKind::Text) {
                    let row = generator.row(split, index, *column);
                    ids.insert(row.id);
                    values.insert(format!("{:?}", row.value));
                    count += 1;
                }
            }
        }
        assert_eq!((ids.len(), values.len()), (60, count));
    }
}

#[test]
fn ten_rows_in_a_row_hold_every_class_once() {
    for kind in KINDS {
        let generator = generator(kind, 3, 0.0);
        let labels: Vec<u32> = (0..200).map(|index| generator.label(Split::Train, index)).collect();
        for ten in labels.chunks(10) {
            assert_eq!(ten.iter().collect::<BTreeSet<_>>().len(), 10, "{ten:?}");
        }
        assert!(labels.chunks(10).any(|ten| ten != &labels[..10]), "their order changes");
    }
}

#[test]
fn values_are_missing_as_asked_and_never_all_of_a_sample() {
    const ROWS: u64 = 3000;
    for kind in KINDS {
        let columns = generator(kind, 0, 0.0).columns();
        let most = (columns.len() - 1) as f64 / columns.len() as f64;
        for missing in [0.0, 0.1, 0.3, most] {
            let generator = generator(kind, 2, missing);
            let mut lacking = vec![0_u32; columns.len()];
            for index in 0..ROWS {
                let has: Vec<bool> = columns.iter().map(|c| generator.has(Split::Train, index, *c)).collect();
                assert!(has.contains(&true), "row {index} has nothing");
                has.iter().zip(&mut lacking).for_each(|(has, count)| *count += u32::from(!has));
            }
            // Five standard deviations of a share that is measured on this many rows.
            let bound = 5.0 * (missing * (1.0 - missing) / ROWS as f64).sqrt();
            for count in lacking {
                let share = f64::from(count) / ROWS as f64;
                assert!((share - missing).abs() <= bound, "{share} rather than {missing}");
            }
        }
    }
}

#[test]
fn a_row_has_its_value_exactly_where_the_generator_says_so() {
    for kind in KINDS {
        let generator = generator(kind, 4, 0.4);
        for column in generator.columns() {
            for index in 0..20 {
                let row = generator.row(Split::Test, index, column);
                assert_eq!(row.value.is_some(), generator.has(Split::Test, index, column));
                assert_eq!(
                    (row.id, row.label),
                    (generator.id(Split::Test, index), generator.label(Split::Test, index))
                );
            }
        }
    }
}

#[test]
fn what_is_not_possible_is_said() {
    for missing in [-0.1, 0.7, f64::NAN] {
        let error = Generator::new(SynthKind::SpokenDigits, 1, SAMPLES, missing).expect_err("not a share");
        assert!(error.to_string().contains("use a number from 0 to 0.667"), "{error}");
    }
    let none = SynthSamples { train: 0, validation: 1, test: 1 };
    assert!(Generator::new(SynthKind::Features, 1, none, 0.0).is_err());
    let unknown = generator(SynthKind::Features, 1, 0.0).column("image").expect_err("it has a and b");
    assert_eq!(unknown.to_string(), "generated data `features` has no column `image`: use one of `a`, `b`");
}

/// A job with generated rows.
fn job(kind: SynthKind) -> JobSpec {
    let modalities = kind.columns().join(", ");
    let text = format!(
        "name: t\ndata: {{source: synth, kind: {}, samples: {{train: 60, validation: 20, test: 30}}, missing: 20%}}\n\
         modalities: [{modalities}]\nlabels: 10\nschedule: {{epochs: 1}}\n",
        kind.name()
    );
    parse(&text, "test", &[], &|_| None).expect("a job")
}

#[tokio::test]
async fn every_row_is_decoded() {
    for kind in KINDS {
        let job = job(kind);
        for modality in &job.modalities {
            let open = |split| Dataset::open(modality, &job.labels, split, 1, options());
            let train = open(Split::Train).await.expect("rows");
            let preprocessor = Preprocessor::fit(modality, &train).await.expect("an input");
            for dataset in [train, open(Split::Validation).await.expect("rows"), open(Split::Test).await.expect("rows")]
            {
                for i in 0..dataset.len() as u32 {
                    let value = dataset.value(i).expect("it is in memory");
                    preprocessor.decode(&value).unwrap_or_else(|error| panic!("{}: {error}", dataset.id(i)));
                }
            }
        }
    }
}

fn options() -> &'static OpenOptions {
    static OPTIONS: std::sync::OnceLock<OpenOptions> = std::sync::OnceLock::new();
    OPTIONS.get_or_init(|| OpenOptions::new(LocalStores::shared()))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

const CONTINUE: fn(u64) -> ControlFlow<()> = |_| ControlFlow::Continue(());

/// The same modality, read from the files in `folder`.
fn from_files(modality: &ModalitySpec, folder: &Path) -> ModalitySpec {
    let files = |split: &str| vec![format!("{}/{split}*.parquet", folder.display())];
    let data = DataSpec::Parquet {
        train: files("train"),
        validation: ValidationSource::Files(files("validation")),
        test: files("test"),
        column: modality.name.to_string(),
        id: Some("id".to_owned()),
    };
    ModalitySpec { data, ..modality.clone() }
}

#[tokio::test]
async fn files_hold_the_generated_rows_in_their_order() {
    for (kind, rows_per_shard) in [(SynthKind::SpokenDigits, Some(25)), (SynthKind::Features, None)] {
        let (job, folder) = (job(kind), tempfile::tempdir().expect("a folder"));
        let options = WriteOptions { rows_per_shard, overwrite: false };
        let files = write(&generator(kind, 1, 0.2), folder.path(), options, CONTINUE).expect("a writable folder");
        let files = files.expect("the write is not interrupted");
        assert_eq!(files.iter().map(|file| file.rows).sum::<u64>(), 110);
        for modality in &job.modalities {
            let other = from_files(modality, folder.path());
            for split in SPLITS {
                let open = |modality| Dataset::open(modality, &job.labels, split, 1, self::options());
                let (made, read) = (open(modality).await.expect("rows"), open(&other).await.expect("rows"));
                assert_eq!((made.rows(), made.len()), (read.rows(), read.len()));
                for i in 0..made.len() as u32 {
                    assert_eq!((made.id(i), made.label(i)), (read.id(i), read.label(i)));
                    assert_eq!(made.value(i).expect("a value"), read.value(i).expect("a value"));
                }
            }
        }
    }
}

#[test]
fn files_are_there_together_or_not_at_all() {
    let (generator, folder) = (generator(SynthKind::Features, 1, 0.1), tempfile::tempdir().expect("a folder"));
    let folder = folder.path().join("new/folder");
    let with = |rows_per_shard, overwrite| WriteOptions { rows_per_shard, overwrite };
    let stopped = write(&generator, &folder, with(Some(30), false), |rows| {
        if rows > 60 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(stopped.expect("a writable folder").is_none());
    assert_eq!(names(&folder), Vec::<String>::new());

    write(&generator, &folder, with(Some(30), false), CONTINUE).expect("a writable folder");
    let shards = [
        "test-00000-of-00001.parquet",
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
        "validation-00000-of-00001.parquet",
    ];
    assert_eq!(names(&folder), shards);
    let refused = write(&generator, &folder, with(None, false), CONTINUE).expect_err("there is a data set");
    assert!(matches!(&refused, WriteError::Exists { path } if path.ends_with(shards[0])), "{refused}");
    assert_eq!(names(&folder), shards);

    std::fs::write(folder.join("training-notes.parquet"), "mine").expect("a writable folder");
    write(&generator, &folder, with(None, true), CONTINUE).expect("it may be replaced");
    let replaced = ["test.parquet", "train.parquet", "training-notes.parquet", "validation.parquet"];
    assert_eq!(names(&folder), replaced, "other files stay");
}

/// SHA-256 of the first values, their ids and labels. A change of these hashes changes every user's data. Make it only
/// on purpose, and list it in the change log. PNG files are hashed as pixels, because their encoder may change.
#[test]
fn the_bits_of_the_generator_stay_as_they_are() {
    let hash = |kind, name: &str| {
        let generator = generator(kind, 1, 0.1);
        let column = generator.column(name).expect("a column");
        let mut hash = Sha256::new();
        for row in SPLITS.iter().flat_map(|split| (0..10).map(|index| generator.row(*split, index, column))) {
            hash.update(format!("{} {} ", row.id, row.label));
            match row.value {
                None => hash.update("none"),
                Some(RawValue::Text(text)) => hash.update(text),
                Some(RawValue::Features(numbers)) => numbers.iter().for_each(|x| hash.update(x.to_le_bytes())),
                Some(RawValue::Bytes(bytes)) if name == "image" => {
                    hash.update(image::load_from_memory(&bytes).expect("a PNG").into_luma8().as_raw());
                }
                Some(RawValue::Bytes(bytes)) => hash.update(bytes),
                Some(RawValue::Clip(_)) => panic!("no clips are generated"),
            }
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let hashes = [
        hash(SynthKind::SpokenDigits, "image"),
        hash(SynthKind::SpokenDigits, "audio"),
        hash(SynthKind::SpokenDigits, "text"),
        hash(SynthKind::Features, "a"),
        hash(SynthKind::Features, "b"),
    ];
    let goldens = [
        "77c701fd9b54de4522a84094a2470016deda2087ddf87cc51a96a2e161cc54df",
        "f10e5b82f00793ca023a6b29c2350a0f1f9f128129ce50608c652bfe64b61200",
        "7d8feff8a318a5766b7e8ee92d712e457ea0e03f3d9203b2fb6e9667d5ab7501",
        "1b5753b675295438568b5b6c193d3da6d29162f82aac6a14b0ab227d30f178fa",
        "2a42cc8c670f627845da4e6fa1d025e74c61a11b3a166ab89911d5cdd8f4ed9c",
    ];
    assert_eq!(hashes, goldens);
}
