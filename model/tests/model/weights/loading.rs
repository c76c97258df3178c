//! From a file to an encoder: tensors that do not fit are listed, and then nothing is loaded unless the job allows it.

use std::path::Path;

use antiphon_core::spec::{EncoderSpec, ResnetDepth, WeightsSpec};
use antiphon_model::encoder::Encoder;
use antiphon_model::weights::{Cache, Report, WeightsError, begin, load};
use candle_core::{Device, Tensor};

use super::super::stores::stores;
use super::support::{Named, Shapes, Shelf, check, flat, from, shapes, tensor, tensors, write};

const RESNET: EncoderSpec = EncoderSpec::Resnet { depth: ResnetDepth::Eighteen };

fn own() -> Shapes {
    shapes(&[
        ("conv1.weight", &[4, 1, 3, 3]),
        ("bn1.weight", &[4]),
        ("bn1.bias", &[4]),
        ("bn1.running_mean", &[4]),
        ("bn1.running_var", &[4]),
        ("adapter.weight", &[2, 4]),
        ("adapter.bias", &[2]),
    ])
}

/// The file's tensors: all of the encoder's except for the adapter's, modified by `change`.
fn file(change: impl FnOnce(&mut Shapes)) -> Named {
    let mut file = own();
    file.retain(|name, _| !name.starts_with("adapter."));
    change(&mut file);
    tensors(&file)
}

async fn load_file(tensors: &Named, strict: bool) -> (Shelf, Result<Report, String>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("file");
    write(&path, tensors);
    let mut shelf = Shelf::new(&own());
    let weights = WeightsSpec { strict, ..from(&path) };
    let report = begin(&mut shelf, &RESNET, &weights, &Cache::at(folder.path().to_owned(), stores())).await;
    (shelf, report.map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "FOLDER")))
}

#[tokio::test]
async fn what_fits_is_taken_over_and_the_adapter_need_not_be_there() {
    let (shelf, report) = load_file(&file(|_| {}), true).await;
    assert_eq!(report, Ok(Report { loaded: 5, ..Report::default() }));
    for (name, values) in shelf.values() {
        let shape = &own()[&name];
        let expected = if name.starts_with("adapter.") { vec![0.0; values.len()] } else { flat(&tensor(&name, shape)) };
        assert_eq!(values, expected, "{name}");
    }
}

#[tokio::test]
async fn an_adapter_is_taken_over_where_it_fits() {
    let with = |width| file(|file| drop(file.insert("adapter.weight".to_owned(), vec![width, 4])));
    let (shelf, report) = load_file(&with(2), true).await;
    assert_eq!(report, Ok(Report { loaded: 6, ..Report::default() }));
    assert_eq!(shelf.values()["adapter.weight"], flat(&tensor("adapter.weight", &[2, 4])));
    let (shelf, report) = load_file(&with(3), true).await;
    assert_eq!(report, Ok(Report { loaded: 5, ..Report::default() }));
    assert_eq!(shelf.values()["adapter.weight"], [0.0; 8]);
}

fn untouched(shelf: &Shelf) {
    assert!(shelf.values().values().flatten().all(|value| *value == 0.0));
}

#[tokio::test]
async fn what_does_not_fit_is_listed() {
    let differing = file(|file| {
        file.remove("bn1.bias");
        file.remove("bn1.running_var");
        file.insert("conv1.weight".to_owned(), vec![4, 3, 3, 3]);
        file.insert("conv2.weight".to_owned(), vec![4, 4, 3, 3]);
        file.insert("fc.weight".to_owned(), vec![10, 4]);
    });
    let (shelf, report) = load_file(&differing, true).await;
    check("misfit", &report.expect_err("it is strict"));
    untouched(&shelf);

    let (shelf, report) = load_file(&differing, false).await;
    let report = report.expect("it is not strict");
    assert_eq!((report.loaded, report.missing.len(), report.unexpected.len(), report.unlike.len()), (2, 2, 1, 1));
    let values = shelf.values();
    assert_eq!(values["bn1.weight"], flat(&tensor("bn1.weight", &[4])));
    assert_eq!(values["bn1.running_mean"], flat(&tensor("bn1.running_mean", &[4])));
    assert_eq!(
        (values["bn1.running_var"].as_slice(), values["conv1.weight"].as_slice()),
        (&[0.0; 4][..], &[0.0; 36][..])
    );
}

#[tokio::test]
async fn long_lists_are_cut() {
    let (_, report) =
        load_file(&file(|file| (0..30).for_each(|n| drop(file.insert(format!("x{n:02}"), vec![1])))), true).await;
    check("many", &report.expect_err("it is strict"));
}

#[tokio::test]
async fn a_file_of_which_nothing_fits_is_always_refused() {
    let other: Named = [("a".to_owned(), tensor("a", &[2]))].into();
    let (_, report) = load_file(&other, false).await;
    check("nothing-fits", &report.expect_err("nothing fits"));
}

#[tokio::test]
async fn not_finite_numbers_are_refused_and_nothing_is_changed() {
    let mut bad = file(|_| {});
    let nan = Tensor::new(&[1.0_f32, f32::NAN, 0.0, 0.0], &Device::Cpu).expect("a tensor");
    bad.insert("bn1.running_var".to_owned(), nan);
    let (shelf, report) = load_file(&bad, true).await;
    assert_eq!(
        report,
        Err("tensor `bn1.running_var` contains NaN, but weights must be finite; use another \
             file"
            .to_owned())
    );
    untouched(&shelf);
}

#[test]
fn tensors_are_checked_before_the_first_is_taken_over() {
    let mut shelf = Shelf::new(&own());
    let good = || (String::from("bn1.bias"), tensor("bn1.bias", &[4]));
    for (bad, shape, message) in [
        ("bn1.weight", vec![5], "tensor `bn1.weight` has shape [5], not [4]"),
        ("zz", vec![1], "tensor `zz` is not a tensor of the encoder; remove it"),
    ] {
        let given: Named = [good(), (bad.to_owned(), tensor(bad, &shape))].into();
        let error = load(&mut shelf as &mut dyn Encoder, &given).expect_err(bad);
        assert!(matches!(error, WeightsError::WrongTensor { .. }));
        assert_eq!(error.to_string(), message);
        untouched(&shelf);
    }
    load(&mut shelf, &[good()].into()).expect("it fits");
    assert_eq!(shelf.values()["bn1.bias"], flat(&tensor("bn1.bias", &[4])));
}

#[tokio::test]
async fn a_file_that_is_not_there_says_so() {
    let weights = from(Path::new("/nowhere/weights.pth"));
    let error = begin(&mut Shelf::new(&own()), &RESNET, &weights, &Cache::at("/nowhere".into(), stores())).await;
    assert_eq!(
        error.expect_err("it is not there").to_string(),
        "weights `/nowhere/weights.pth` cannot be read: there is no such file; correct the path"
    );
}
