//! Compares outputs and gradients of the encoders with PyTorch's, through the weight names of its libraries.
//!
//! `golden/` holds a few numbers of small cases; the folder in `ANTIPHON_PYTORCH_REFERENCE` holds whole models.
//! `reference.py` beside this file computes both in float64.
//!
//! Whole models are compared in f64 as well as in f32. Among the millions of inputs of a residual network's ReLUs, some
//! are so near 0 that rounding to f32 changes their sign, in PyTorch as well as here, and with it a row of gradients.
//! There, f32 differences are shown, and only f64 differences are limited.

mod reference;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use antiphon_core::ids::{MicroShard, ModalityName};
use antiphon_core::linalg::Matrix;
use antiphon_core::spec::{EncoderSpec, Precision, WeightsSpec};
use antiphon_model::device::DeviceChoice;
use antiphon_model::encoder::{DropoutKey, Encoder, Frozen, Mode, Numbers, backward, build_of};
use antiphon_model::weights::names::{Family, Own, translate};
use antiphon_model::weights::{Cache, begin, load};
use candle_core::{DType, Device, Tensor};

use super::stores::stores;
use reference::{Case, Named, Samples, Weights, numbers};

/// Largest ‖ours − PyTorch's‖ relative to ‖PyTorch's‖ in f32.
const TOLERANCE: f64 = 1e-4;

/// The same for features and gradients in f64, where most of the difference is the rounding of PyTorch's numbers in
/// files.
const TOLERANCE_F64: f64 = 1e-6;

/// For each element of an encoder's tensors: the tensor in the file, and the position in it.
struct Origins(BTreeMap<String, Vec<(usize, usize)>>);

impl Origins {
    /// Maps the file's names to the encoder's, by converting tensors whose numbers encode their origin.
    fn of(encoder: &dyn Encoder, case: &Case, shapes: &BTreeMap<String, Vec<usize>>) -> Self {
        let translated = |number: &dyn Fn(usize, usize) -> usize| -> Named {
            let tensor = |(which, (name, shape)): (usize, (&String, &Vec<usize>))| {
                let count: usize = shape.iter().product();
                assert!(count < 1 << 24, "{name} has more elements than f32 can tell apart");
                let values: Vec<f32> = (0..count).map(|element| number(which, element) as f32).collect();
                (name.clone(), Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).expect("as many"))
            };
            let floats = shapes.iter().enumerate().map(tensor).collect();
            let file = antiphon_model::weights::file::Tensors { floats, ..Default::default() };
            translate(Family::of(&case.encoder), &Own::of(encoder).expect("names"), file).tensors
        };
        let which = translated(&|which, _| which);
        let element = translated(&|_, element| element);
        let pairs = which.iter().map(|(name, which)| {
            let elements = flat(&element[name]);
            (name.clone(), flat(which).iter().zip(elements).map(|(w, p)| (*w as usize, p as usize)).collect())
        });
        Self(pairs.collect())
    }
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.to_device(&Device::Cpu).and_then(|tensor| tensor.flatten_all());
    flat.and_then(|flat| flat.to_dtype(DType::F64)?.to_vec1()).expect("numbers")
}

/// The largest of several differences, and its name.
#[derive(Default)]
struct Worst(f64, String);

impl Worst {
    fn meet(&mut self, name: &str, pairs: impl Iterator<Item = (f64, f64)>) {
        let (mut difference, mut size, mut seen) = (0.0, 0.0, false);
        for (ours, theirs) in pairs {
            difference += (ours - theirs).powi(2);
            size += theirs * theirs;
            seen = true;
        }
        assert!(seen, "nothing is known of {name}");
        let relative = if difference == 0.0 { 0.0 } else { (difference / size).sqrt() };
        if relative > self.0 || relative.is_nan() {
            *self = Self(relative, name.to_owned());
        }
    }

    /// The encoder's tensors with their known numbers. Tensors of the file that the encoder does not have are skipped.
    fn meet_all(&mut self, own: &[(String, Tensor)], origins: &Origins, shapes: &[&String], known: &Samples) {
        for (name, tensor) in own {
            let values = flat(tensor);
            let pairs = values.iter().zip(&origins.0[name]).filter_map(|(value, &(which, element))| {
                let theirs = known.get(shapes[which])?.get(&element)?;
                Some((*value, *theirs))
            });
            self.meet(name, pairs);
        }
    }
}

/// The devices: the CPU, and a GPU if the build supports one and the machine has one.
fn devices() -> impl Iterator<Item = Device> {
    [DeviceChoice::Cpu, DeviceChoice::Cuda(0)].into_iter().filter_map(|choice| choice.open().ok())
}

fn compare(case: &Case, dtype: DType, device: &Device) -> [Worst; 4] {
    let modality: ModalityName = "m".try_into().expect("a name");
    let of = if dtype == DType::F64 { Numbers::F64 } else { Precision::F32.into() };
    let built = build_of(of, &case.encoder, &case.shape, case.width(), 1, &modality, device);
    let mut encoder = built.expect("it fits");
    let shapes = match &case.weights {
        Weights::Formula(tensors) => {
            let file = antiphon_model::weights::file::Tensors { floats: tensors.clone(), ..Default::default() };
            let own = Own::of(encoder.as_ref()).expect("names");
            let translated = translate(Family::of(&case.encoder), &own, file);
            assert!(translated.report.is_complete(), "{}", translated.report);
            load(encoder.as_mut(), &translated.tensors).expect("it fits");
            reference::shapes(tensors)
        }
        Weights::File(file) => {
            let spec = WeightsSpec { from: file.display().to_string(), sha256: None, strict: true };
            let folder = tempfile::tempdir().expect("a folder");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let cache = Cache::at(folder.path().to_owned(), stores());
            runtime.block_on(begin(encoder.as_mut(), &case.encoder, &spec, &cache)).expect("it fits");
            reference::shapes(&antiphon_model::weights::file::read(file, "the file").expect("tensors").floats)
        }
    };
    let origins = Origins::of(encoder.as_ref(), case, &shapes);
    let shapes: Vec<&String> = shapes.keys().collect();
    let [mut evaluated, mut trained, mut gradients, mut buffers] = [(); 4].map(|()| Worst::default());

    let input = case.input();
    let against = |worst: &mut Worst, name: &str, ours: &Tensor, theirs: &[f64]| {
        worst.meet(name, flat(ours).into_iter().zip(theirs.iter().copied()));
    };
    let out = encoder.forward(&input, &Mode::Evaluate).expect("it fits");
    against(&mut evaluated, "features when evaluating", &out.features, &case.evaluated);

    let key = DropoutKey { seed: 1, modality, step: 0, shard: MicroShard::WHOLE };
    let out = encoder.forward(&input, &Mode::Train(key, Frozen::none())).expect("it fits");
    against(&mut trained, "features when training", &out.features, &case.features);

    let (samples, width) = (case.samples, case.width());
    let upstream = numbers("upstream", samples * width).into_iter().map(|value| value as f32).collect();
    let upstream = Matrix::from_vec(samples, width, upstream).expect("as many");
    let found = backward(encoder.as_ref(), &out, &upstream).expect("gradients");
    let names = encoder.parameters().iter().map(|(name, _)| name.clone());
    let found: Vec<_> = names.zip(found.tensors().iter().flatten().cloned()).collect();
    gradients.meet_all(&found, &origins, &shapes, &case.gradients);

    encoder.commit(out.pending.in_memory().expect("numbers"));
    buffers.meet_all(&encoder.buffers().expect("buffers"), &origins, &shapes, &case.buffers);
    [evaluated, trained, gradients, buffers]
}

/// The lines of a table, and the differences that are too large.
#[derive(Default)]
struct Table {
    lines: Vec<String>,
    failed: Vec<String>,
}

impl Table {
    fn add(&mut self, (name, dtype): (&str, DType), device: &Device, worst: &[Worst; 4], tolerances: [f64; 4]) {
        let name = if device.is_cuda() { format!("{name} (cuda)") } else { name.to_owned() };
        let [evaluated, trained, gradients, buffers] = worst.each_ref().map(|worst| worst.0);
        let dtype = dtype.as_str();
        self.lines.push(format!(
            "{name:24} {dtype:>5} {evaluated:10.1e} {trained:9.1e} {gradients:9.1e} {buffers:9.1e}   {}",
            worst[2].1
        ));
        for (Worst(difference, whose), tolerance) in worst.iter().zip(tolerances) {
            if difference.is_nan() || *difference > tolerance {
                self.failed
                    .push(format!("{name} in {dtype}: {whose} differs by {difference:.1e}, above {tolerance:.0e}"));
            }
        }
    }

    #[allow(clippy::print_stdout, reason = "the table is what the comparison is run for")]
    fn finish(self) {
        println!(
            "{:24} {:>5} {:>10} {:>9} {:>9} {:>9}   worst gradient",
            "case", "", "evaluated", "trained", "gradients", "buffers"
        );
        self.lines.iter().for_each(|line| println!("{line}"));
        assert!(self.failed.is_empty(), "\n{}", self.failed.join("\n"));
    }
}

fn cases(folder: &Path) -> Vec<(String, Case)> {
    let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    files.sort();
    assert!(!files.is_empty(), "there is no case in {}", folder.display());
    let named = |file: PathBuf| (file.file_stem().expect("a name").to_string_lossy().into_owned(), Case::read(&file));
    files.into_iter().map(named).collect()
}

#[test]
fn golden_numbers_of_pytorch() {
    let mut table = Table::default();
    for (name, case) in cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/model/pytorch/golden")) {
        for device in devices() {
            let worst = compare(&case, DType::F32, &device);
            table.add((&name, DType::F32), &device, &worst, [TOLERANCE; 4]);
        }
    }
    table.finish();
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn whole_models_of_pytorch() {
    let Some(folder) = std::env::var_os("ANTIPHON_PYTORCH_REFERENCE") else {
        eprintln!("skipped: run reference.py, which computes what this compares with");
        return;
    };
    let mut table = Table::default();
    for (name, case) in cases(Path::new(&folder)) {
        let doubles = [TOLERANCE_F64, TOLERANCE_F64, TOLERANCE_F64, TOLERANCE];
        let kinks = matches!(case.encoder, EncoderSpec::Resnet { .. });
        let gradients = if kinks { f64::INFINITY } else { TOLERANCE };
        let singles = [TOLERANCE, TOLERANCE, gradients, TOLERANCE];
        for device in devices() {
            for (dtype, tolerances) in [(DType::F64, doubles), (DType::F32, singles)] {
                table.add((&name, dtype), &device, &compare(&case, dtype, &device), tolerances);
            }
        }
    }
    table.finish();
}
