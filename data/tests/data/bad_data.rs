//! Invalid data are refused with a message that says what, where and what to do. Each message is a file in `golden/`;
//! `UPDATE=1 cargo test -p antiphon-data --test data` rewrites them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use antiphon_core::ids::Split;
use antiphon_core::spec::{DataSpec, InputSpec, LabelSpec, ModalitySpec, TokenizerSpec, ValidationSource};
use antiphon_data::{DataError, Dataset, OpenOptions, PrefetchOptions, Prefetcher, Preprocessor};
use arrow_array::{ArrayRef, Int64Array};

use super::common::{clips, files, ids, integers, labels, lists, modality, png, texts, wav, write};
use super::stores::stores;

/// A folder for one case, and the job's specification of the files in it.
struct Case {
    folder: tempfile::TempDir,
    modality: ModalitySpec,
    labels: LabelSpec,
    split: Split,
}

impl Case {
    fn new(column: &str, input: InputSpec) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let modality = modality(folder.path().join("train.parquet").display().to_string(), column, input);
        Self { folder, modality, labels: labels(3), split: Split::Train }
    }

    /// Three rows with valid ids and labels.
    fn of(column: &str, input: InputSpec, values: ArrayRef) -> Self {
        Self::written(
            column,
            input,
            vec![("id", ids(["a", "b", "c"])), ("label", integers([0, 1, 2])), (column, values)],
        )
    }

    fn written(column: &str, input: InputSpec, columns: Vec<(&str, ArrayRef)>) -> Self {
        let case = Self::new(column, input);
        write(&case.train(), columns);
        case
    }

    fn train(&self) -> PathBuf {
        self.folder.path().join("train.parquet")
    }

    fn source(&mut self, name: String) {
        if let DataSpec::Parquet { train, .. } = &mut self.modality.data {
            *train = vec![name];
        }
    }

    /// Opens the data and reads all batches.
    async fn run(&self) -> Result<(), DataError> {
        let options = OpenOptions::new(stores());
        let dataset = Arc::new(Dataset::open(&self.modality, &self.labels, self.split, 1, &options).await?);
        let preprocessor = Arc::new(Preprocessor::fit(&self.modality, &dataset).await?);
        Prefetcher::evaluation(dataset, preprocessor, 2, PrefetchOptions::default())
            .try_for_each(|batch| batch.map(drop))
    }

    /// Compares the message with the golden file, with this run's folder and port replaced.
    async fn golden(self, name: &str) {
        let error = self.run().await.expect_err(name);
        let folder = self.folder.path().display().to_string();
        check(name, &error.to_string().replace(&folder, "<folder>"));
    }
}

fn check(name: &str, message: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, format!("{message}\n")).expect("the golden file can be written");
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(message, expected.trim_end(), "{name}: run with UPDATE=1 and look at the difference if this is meant");
}

fn features() -> InputSpec {
    InputSpec::Features { standardise: true }
}

fn audio() -> InputSpec {
    InputSpec::Audio { sample_rate: 8000, seconds: 0.5, mels: 16, window: 256, hop: 128 }
}

fn image() -> InputSpec {
    InputSpec::Image { height: None, width: None, channels: 1, frames: 1 }
}

fn three_vectors() -> ArrayRef {
    lists(&[Some(vec![1.0, 2.0]), Some(vec![3.0, 4.0]), Some(vec![5.0, 6.0])])
}

fn with(column: &'static str, values: ArrayRef) -> Case {
    let mut columns = vec![("id", ids(["a", "b", "c"])), ("label", integers([0, 1, 2])), ("x", three_vectors())];
    columns.iter_mut().filter(|(name, _)| *name == column).for_each(|(_, old)| *old = values.clone());
    Case::written("x", features(), columns)
}

#[tokio::test]
async fn columns() {
    Case::of("x", features(), three_vectors()).run().await.expect("good data");
    let mut case = Case::of("x", features(), three_vectors());
    case.modality = modality(case.train().display().to_string(), "audio", features());
    case.golden("wrong-column").await;
    let mut case = Case::of("x", features(), three_vectors());
    case.labels.column = "class".to_owned();
    case.golden("wrong-label-column").await;
    Case::of("x", image(), three_vectors()).golden("column-of-another-type").await;
    with("label", texts(["cat", "dog", "the cat"])).golden("labels-without-names").await;
}

#[tokio::test]
async fn labels_and_ids() {
    with("label", integers([0, 3, 1])).golden("label-out-of-range").await;
    with("label", integers([0, -1, 1])).golden("label-negative").await;
    with("label", Arc::new(Int64Array::from(vec![Some(0), Some(1), None]))).golden("label-null").await;
    let mut case = with("label", texts(["cat", "dog", "cow"]));
    case.labels.classes = antiphon_core::spec::Classes::Names(vec!["cat".to_owned(), "dog".to_owned()]);
    case.golden("label-unknown").await;
    with("id", ids(["a", "b", "a"])).golden("duplicate-id").await;
    with("id", ids(["a", "b", &"c".repeat(1025)])).golden("id-too-long").await;
    with("id", ids(["a", "b", &"c".repeat(1024)])).run().await.expect("an id of the greatest length");
    with("id", Arc::new(arrow_array::StringArray::from(vec![Some("a"), None, Some("c")]))).golden("id-null").await;
}

#[tokio::test]
async fn values() {
    let nan = lists(&[Some(vec![1.0, 2.0]), Some(vec![3.0, f32::NAN]), None]);
    Case::of("x", features(), nan).golden("feature-nan").await;
    let ragged = lists(&[Some(vec![1.0, 2.0]), Some(vec![3.0]), None]);
    Case::of("x", features(), ragged).golden("features-ragged").await;
    let (good, whole) = (png(8, 8, 1), png(8, 8, 2));
    let truncated = &whole[..whole.len() - 30];
    Case::of("image", image(), files(&[Some(&good), None, Some(truncated)])).golden("png-truncated").await;
    Case::of("image", image(), files(&[Some(&good), Some(b"GIF89a.."), None])).golden("image-unknown").await;
    let recording = wav(8000, 2000, 440.0);
    let mut lying = recording.clone();
    lying[40..44].copy_from_slice(&80_000_u32.to_le_bytes());
    Case::of("audio", audio(), files(&[Some(&recording), Some(&lying), None])).golden("wav-lying-header").await;
    Case::of("audio", audio(), files(&[Some(&recording), Some(b"OggS\0\x02"), None])).golden("audio-unknown").await;
    Case::of("audio", InputSpec::Auto, files(&[Some(b"%PDF-1.7"), None, None])).golden("file-unknown").await;
}

#[tokio::test]
async fn frames_of_clips() {
    let (good, whole) = (png(8, 8, 1), png(8, 8, 2));
    let (good, truncated) = (good.as_slice(), &whole[..whole.len() - 30]);
    let fine = || Some(vec![Some(good); 3]);
    let of = |frames, second: Option<Vec<Option<&[u8]>>>| {
        let input = InputSpec::Image { height: None, width: None, channels: 1, frames };
        Case::of("clip", input, clips(&[fine(), second, None]))
    };
    of(2, fine()).run().await.expect("good clips");
    of(2, Some(Vec::new())).golden("clip-empty").await;
    of(2, Some(vec![Some(good), None, Some(good)])).golden("clip-null-frame").await;
    of(3, Some(vec![Some(good), Some(good), Some(truncated)])).golden("clip-broken-frame").await;
    of(1, Some(vec![Some(good), Some(b"GIF89a..".as_slice()), Some(good)])).golden("clip-unknown-frame").await;
    // A frame that is not selected is not decoded.
    of(1, Some(vec![Some(good), Some(good), Some(truncated)])).run().await.expect("the one in the middle is fine");
    let input = InputSpec::Image { height: None, width: None, channels: 1, frames: 2 };
    Case::of("image", input, files(&[Some(good), Some(good), None])).golden("frames-of-single-images").await;
    Case::of("audio", audio(), clips(&[fine(), None, None])).golden("clips-as-audio").await;
    Case::of("clip", InputSpec::Auto, clips(&[Some(vec![Some(b"OggS".as_slice())]), None, None]))
        .golden("clips-of-sound")
        .await;
}

#[tokio::test]
async fn splits() {
    let none = vec![("id", ids([])), ("label", integers([])), ("x", lists(&[]))];
    Case::written("x", features(), none).golden("split-empty").await;
    Case::of("x", features(), lists(&[None, None, None])).golden("split-without-modality").await;
    let mut case = Case::of("x", features(), three_vectors());
    case.split = Split::Test;
    case.golden("split-not-given").await;
    let mut case = Case::of("x", features(), three_vectors());
    if let DataSpec::Parquet { validation, .. } = &mut case.modality.data {
        *validation = ValidationSource::Fraction(1e-9);
    }
    case.split = Split::Validation;
    case.golden("validation-without-rows").await;
}

#[tokio::test]
async fn tokenizers() {
    for (name, content) in [("tokenizer-missing", None), ("tokenizer-broken", Some("{\"model\": 7}"))] {
        let mut case = Case::of("text", InputSpec::Auto, texts(["one", "two", "three"]));
        let file = case.folder.path().join("tokenizer.json");
        if let Some(content) = content {
            std::fs::write(&file, content).expect("the folder is writable");
        }
        let tokenizer = TokenizerSpec::File(file.display().to_string());
        case.modality.input = InputSpec::Text { tokenizer, max_tokens: 8 };
        case.golden(name).await;
    }
}

#[tokio::test]
async fn broken_files() {
    let case = Case::of("x", features(), three_vectors());
    let whole = std::fs::read(case.train()).expect("it was written");
    std::fs::write(case.train(), &whole[..whole.len() - 100]).expect("the folder is writable");
    case.golden("parquet-truncated").await;
    let case = Case::new("x", features());
    std::fs::write(case.train(), "id,label,x\na,0,1.5\n").expect("the folder is writable");
    case.golden("parquet-not").await;
    let case = Case::of("x", features(), three_vectors());
    let mut damaged = whole.clone();
    let middle = damaged.len() - 60;
    damaged[middle - 40..middle].fill(0xff);
    std::fs::write(case.train(), damaged).expect("the folder is writable");
    assert!(case.run().await.is_err(), "a damaged footer was taken");
}

#[tokio::test]
async fn locations() {
    let mut case = Case::of("x", features(), three_vectors());
    case.source(format!("{}/*/train-?.parquet", case.folder.path().display()));
    case.golden("no-file-matches").await;
    let mut case = Case::of("x", features(), three_vectors());
    case.source(case.folder.path().join("tarin.parquet").display().to_string());
    case.golden("no-such-file").await;
    let mut case = Case::new("x", features());
    case.source("ftp://host/train.parquet".to_owned());
    case.golden("scheme-unknown").await;
    let mut case = Case::new("x", features());
    case.source("https://host/train-*.parquet".to_owned());
    case.golden("wildcard-over-http").await;
}

#[tokio::test]
async fn a_url_without_a_server() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    drop(listener);
    let mut case = Case::new("x", features());
    case.source(format!("http://127.0.0.1:{port}/train.parquet"));
    let message = case.run().await.expect_err("no server listens there").to_string();
    check("url-unreachable", &message.replace(&port.to_string(), "<port>"));
}
