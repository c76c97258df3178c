//! Property tests from files to batches: the batches do not depend on threads, memory limit or first step; every sample
//! occurs once; all modalities have the same validation samples.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use antiphon_core::ids::Split;
use antiphon_core::spec::{Classes, DataSpec, InputSpec, LabelSpec, ModalitySpec, ValidationSource};
use antiphon_data::stores::LocalStores;
use antiphon_data::{
    Batch, BatchInput, DataError, Dataset, Decoded, InputShape, OpenOptions, PrefetchOptions, Prefetcher, Preprocessor,
    Sampler, UNLABELLED,
};
use arrow_array::{ArrayRef, Int64Array};

use super::common::{clips, files, ids, integers, labels, lists, modality, numbered, png, texts, wav, write};

const ROWS: usize = 57;

/// A file with an image, a recording, a text and a vector in most rows.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let images: Vec<_> = (0..ROWS).map(|i| (i % 5 != 0).then(|| png(9, 7, i as u32))).collect();
    let sounds: Vec<_> =
        (0..ROWS).map(|i| (i % 4 != 0).then(|| wav(8000, 900 + 60 * i as u32, 200.0 + i as f64))).collect();
    let frames: Vec<Vec<_>> =
        (0..ROWS).map(|i| (0..=i % 7).map(|frame| png(9, 7, (31 * i + frame) as u32)).collect()).collect();
    let taken = |i: usize| {
        (!i.is_multiple_of(6)).then(|| frames[i].iter().map(|frame| Some(frame.as_slice())).collect::<Vec<_>>())
    };
    let vectors: Vec<_> = (0..ROWS).map(|i| (i % 3 != 0).then(|| vec![i as f32, 1.0, (i * i) as f32])).collect();
    let words: Vec<_> = (0..ROWS).map(|i| "word ".repeat(i % 6)).collect();
    let columns = vec![
        ("id", numbered(ROWS)),
        ("label", integers((0..ROWS as i64).map(|i| i % 3))),
        ("image", files(&images.iter().map(|file| file.as_deref()).collect::<Vec<_>>())),
        ("audio", files(&sounds.iter().map(|file| file.as_deref()).collect::<Vec<_>>())),
        ("clip", clips(&(0..ROWS).map(taken).collect::<Vec<_>>())),
        ("features", lists(&vectors)),
        ("text", texts(words.iter().map(String::as_str))),
    ];
    write(&folder.path().join("train.parquet"), columns);
    folder
}

const COLUMNS: [&str; 5] = ["image", "audio", "clip", "features", "text"];

fn of(folder: &Path, column: &str) -> ModalitySpec {
    let input = if column == "clip" { clip(3) } else { InputSpec::Auto };
    modality(folder.join("train.parquet").display().to_string(), column, input)
}

fn clip(frames: u32) -> InputSpec {
    InputSpec::Image { height: Some(9), width: Some(7), channels: 1, frames }
}

async fn open(modality: &ModalitySpec, split: Split, memory: u64) -> Arc<Dataset> {
    let options = OpenOptions { memory, ..OpenOptions::new(LocalStores::shared()) };
    Arc::new(Dataset::open(modality, &labels(3), split, 5, &options).await.expect("good data"))
}

async fn train(modality: &ModalitySpec, memory: u64, from: u64, options: PrefetchOptions) -> Prefetcher {
    let dataset = open(modality, Split::Train, memory).await;
    let preprocessor = Arc::new(Preprocessor::fit(modality, &dataset).await.expect("good data"));
    let sampler = Sampler::new(5, modality.name.clone(), dataset.len(), 8);
    Prefetcher::train(dataset, preprocessor, sampler, from, options)
}

fn taken(batches: Prefetcher, count: usize) -> Vec<Batch> {
    batches.take(count).map(|batch| batch.expect("good data")).collect()
}

#[tokio::test]
async fn batches_do_not_depend_on_threads_memory_or_first_step() {
    let folder = folder();
    for column in COLUMNS {
        let modality = of(folder.path(), column);
        let plain = PrefetchOptions { threads: 1, depth: 1 };
        let expected = taken(train(&modality, u64::MAX, 0, plain).await, 20);
        assert!(expected.iter().enumerate().all(|(i, batch)| batch.number == i as u64));
        for (memory, from, threads, depth) in [(u64::MAX, 0, 4, 7), (0, 0, 3, 2), (100, 13, 2, 40)] {
            let options = PrefetchOptions { threads, depth };
            let batches = taken(train(&modality, memory, from, options).await, 20 - from as usize);
            assert_eq!(batches, expected[from as usize..], "{column} {memory} {from} {threads} {depth}");
        }
    }
}

#[tokio::test]
async fn values_beyond_the_bound_are_in_a_file_and_the_same() {
    let folder = folder();
    for column in COLUMNS {
        let modality = of(folder.path(), column);
        let (memory, spool) = (open(&modality, Split::Train, u64::MAX).await, open(&modality, Split::Train, 50).await);
        assert!(!memory.is_spooled() && spool.is_spooled());
        for i in (0..memory.len() as u32).rev() {
            assert_eq!(memory.value(i).expect("in memory"), spool.value(i).expect("in the file"));
        }
    }
}

#[tokio::test]
async fn a_clip_is_the_images_taken_of_it_in_order() {
    let folder = folder();
    let read = async |input: InputSpec| {
        let modality = ModalitySpec { input, ..of(folder.path(), "clip") };
        let dataset = open(&modality, Split::Train, u64::MAX).await;
        let preprocessor = Preprocessor::fit(&modality, &dataset).await.expect("good data");
        let decode = |i: u32| preprocessor.decode(&dataset.value(i).expect("a value")).expect("it decodes");
        let samples: Vec<Vec<f32>> = (0..dataset.len() as u32)
            .map(|i| match decode(i) {
                Decoded::Dense(values) => values,
                Decoded::Tokens(_) => panic!("images are dense"),
            })
            .collect();
        (preprocessor.shape().clone(), samples)
    };
    let (shape, threes) = read(clip(3)).await;
    assert_eq!(shape, InputShape::Clip { frames: 3, channels: 1, height: 9, width: 7 });
    let (shape, ones) = read(clip(1)).await;
    assert_eq!(shape, InputShape::Grid { channels: 1, height: 9, width: 7 });
    let rows = (0..ROWS).filter(|i| !i.is_multiple_of(6));
    assert_eq!(threes.len(), rows.clone().count());
    for (row, (three, one)) in rows.zip(threes.iter().zip(&ones)) {
        let length = row % 7 + 1;
        let frame = |position: usize| {
            let image = image::load_from_memory(&png(9, 7, (31 * row + position) as u32)).expect("a PNG").into_luma8();
            image.into_raw().into_iter().map(|v| f32::from(v) / 127.5 - 1.0).collect::<Vec<_>>()
        };
        let expected: Vec<f32> = [1, 3, 5].into_iter().flat_map(|odd| frame(odd * length / 6)).collect();
        assert_eq!((three, one), (&expected, &frame(length / 2)), "row {row}");
    }
    let (shape, automatic) = read(InputSpec::Auto).await;
    assert_eq!((shape, automatic.len()), (InputShape::Grid { channels: 3, height: 9, width: 7 }, ones.len()));
}

#[tokio::test]
async fn an_evaluation_has_every_sample_once_in_order_of_id() {
    let folder = folder();
    let modality = of(folder.path(), "features");
    let dataset = open(&modality, Split::Train, u64::MAX).await;
    let preprocessor = Arc::new(Preprocessor::fit(&modality, &dataset).await.expect("good data"));
    let run = |chunk| {
        let batches = Prefetcher::evaluation(dataset.clone(), preprocessor.clone(), chunk, PrefetchOptions::default());
        let batches: Vec<Batch> = batches.map(|batch| batch.expect("good data")).collect();
        let numbers = batches.iter().flat_map(|batch| match &batch.input {
            BatchInput::Dense { data, .. } => data.clone(),
            BatchInput::Tokens { .. } => Vec::new(),
        });
        let ids: Vec<String> = batches.iter().flat_map(|batch| batch.ids.clone()).collect();
        (ids, numbers.collect::<Vec<f32>>())
    };
    let (ids, numbers) = run(1);
    assert_eq!(ids.len(), ROWS - ROWS.div_ceil(3));
    assert!(ids.is_sorted());
    assert_eq!(run(7), (ids.clone(), numbers.clone()));
    assert_eq!(run(1000), (ids, numbers));
}

#[tokio::test]
async fn modalities_share_their_validation_samples() {
    let folder = folder();
    let mut held_out = Vec::new();
    for column in COLUMNS {
        let mut modality = of(folder.path(), column);
        if let DataSpec::Parquet { validation, .. } = &mut modality.data {
            *validation = ValidationSource::Fraction(0.3);
        }
        let ids =
            |dataset: Arc<Dataset>| (0..dataset.len() as u32).map(|i| dataset.id(i).to_owned()).collect::<Vec<_>>();
        let train = open(&modality, Split::Train, u64::MAX).await;
        let validation = open(&modality, Split::Validation, u64::MAX).await;
        assert_eq!(train.rows() + validation.rows(), ROWS as u64);
        assert!((5..=30).contains(&validation.rows()), "{} rows", validation.rows());
        held_out.push((ids(train), ids(validation)));
    }
    for (train, _) in &held_out {
        assert!(held_out.iter().all(|(_, validation)| validation.iter().all(|id| !train.contains(id))));
    }
}

#[tokio::test]
async fn rows_without_an_id_column_are_numbered_over_all_shards() {
    let folder = folder();
    std::fs::copy(folder.path().join("train.parquet"), folder.path().join("train-2.parquet")).expect("there is room");
    let mut modality = of(folder.path(), "text");
    if let DataSpec::Parquet { train, id, .. } = &mut modality.data {
        *train = vec![format!("{}/train*.parquet", folder.path().display())];
        *id = None;
    }
    let dataset = open(&modality, Split::Train, u64::MAX).await;
    assert_eq!(dataset.len(), 2 * ROWS);
    assert_eq!(dataset.id(0), "000000000000");
    assert_eq!(dataset.id(2 * ROWS as u32 - 1), format!("{:012}", 2 * ROWS - 1));
    assert!(dataset.place(0).file.ends_with("train-2.parquet"), "shards are not in the order of their names");
}

#[tokio::test]
async fn a_checkpoint_gives_back_the_same_preprocessing() {
    let folder = folder();
    for column in COLUMNS {
        let modality = of(folder.path(), column);
        let dataset = open(&modality, Split::Train, u64::MAX).await;
        let fitted = Preprocessor::fit(&modality, &dataset).await.expect("good data");
        let mut state = fitted.state();
        let json = serde_json::to_string(&state.settings).expect("it can be written");
        state.settings = serde_json::from_str(&json).expect("it can be read");
        let restored = Preprocessor::from_state(state).expect("a good state");
        for i in 0..dataset.len() as u32 {
            let value = dataset.value(i).expect("in memory");
            assert_eq!(fitted.decode(&value), restored.decode(&value));
        }
    }
}

#[tokio::test]
async fn a_dropped_prefetcher_stops_and_errors_keep_their_order() {
    let folder = folder();
    let modality = of(folder.path(), "image");
    let dataset = open(&modality, Split::Train, u64::MAX).await;
    let mut state = Preprocessor::fit(&modality, &dataset).await.expect("good data").state();
    state.settings.input = InputSpec::Features { standardise: false };
    state.settings.shape = InputShape::Features { width: 1 };
    let wrong = Arc::new(Preprocessor::from_state(state).expect("it fits together"));
    let sampler = Sampler::new(5, modality.name.clone(), dataset.len(), 8);
    let mut batches = Prefetcher::train(dataset, wrong, sampler, 3, PrefetchOptions { threads: 3, depth: 2 });
    let message = batches.next().expect("no end").expect_err("images are no features").to_string();
    assert!(message.contains("train.parquet") && message.contains("cannot be used as features"), "{message}");
    assert!(batches.next().expect("no end").is_err());
    drop(batches);
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
async fn real_recordings_and_images_load() {
    let Some(folder) = std::env::var_os("ANTIPHON_TEST_DATA").map(PathBuf::from) else {
        eprintln!("skipped: ANTIPHON_TEST_DATA does not name a folder with avdigits/");
        return;
    };
    for (column, height, width) in [("image", 28, 28), ("audio", 64, 61)] {
        let name = folder.join("avdigits/train.parquet").display().to_string();
        let mut modality = modality(name, column, InputSpec::Auto);
        if column == "audio" {
            modality.input = InputSpec::Audio { sample_rate: 8000, seconds: 1.0, mels: 64, window: 256, hop: 128 };
        }
        let labels = LabelSpec { column: "label".to_owned(), classes: Classes::Count(10) };
        let dataset = Dataset::open(&modality, &labels, Split::Train, 1, &OpenOptions::new(LocalStores::shared()))
            .await
            .expect("good data");
        assert_eq!(dataset.len(), 2700);
        let preprocessor = Preprocessor::fit(&modality, &dataset).await.expect("good data");
        let channels = if column == "image" { 3 } else { 1 };
        assert_eq!(*preprocessor.shape(), InputShape::Grid { channels, height, width });
        let batches = Prefetcher::evaluation(dataset.into(), preprocessor.into(), 64, PrefetchOptions::default());
        assert_eq!(batches.map(|batch| batch.expect("good data").ids.len()).sum::<usize>(), 2700);
    }
}

#[tokio::test]
async fn samples_to_predict_need_no_labels() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let values = || lists(&[Some(vec![1.0]), Some(vec![2.0]), Some(vec![3.0])]);
    let some: ArrayRef = Arc::new(Int64Array::from(vec![Some(2), None, Some(-1)]));
    write(
        &folder.path().join("a.parquet"),
        vec![("id", ids(["a", "b", "c"])), ("features", values()), ("label", some)],
    );
    write(&folder.path().join("b.parquet"), vec![("id", ids(["d", "e", "f"])), ("features", values())]);
    let modality = modality(folder.path().join("*.parquet").display().to_string(), "features", InputSpec::Auto);
    let (labels, options) = (labels(3), OpenOptions::new(LocalStores::shared()));
    let opened = async |labels| {
        let dataset = Dataset::open_to_predict(&modality, labels, Split::Train, 1, &options).await?;
        Ok::<_, DataError>((0..dataset.len() as u32).map(|i| dataset.label(i)).collect::<Vec<u32>>())
    };
    let with = opened(Some(&labels)).await.expect("labels are optional");
    assert_eq!(with, [2, UNLABELLED, UNLABELLED, UNLABELLED, UNLABELLED, UNLABELLED]);
    assert_eq!(opened(None).await.expect("labels are ignored"), [UNLABELLED; 6]);
    let strict = Dataset::open(&modality, &labels, Split::Train, 1, &options).await.expect_err("b has no labels");
    assert!(strict.to_string().contains("b.parquet: there is no column `label`"), "{strict}");
    let few = LabelSpec { classes: Classes::Count(2), ..labels.clone() };
    let wrong = opened(Some(&few)).await.expect_err("2 is no class");
    assert!(wrong.to_string().contains("label 2 is not between 0 and 1"), "{wrong}");
}
