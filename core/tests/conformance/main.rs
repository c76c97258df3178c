//! Core's mathematics against the numbers of an independent program that follows the definitions
//! (`vectors/make_vectors.py --check` compares the two): to 1e-9 in f64, and to 1e-4 in f32, which jobs use.

mod encoder;
mod trace;

use antiphon_core::fusion::{self, FusionRule};
use antiphon_core::ids::ModalityName;
use antiphon_core::learning_rate::alpha_decay;
use antiphon_core::linalg::{Matrix, Real, argmax};
use antiphon_core::projector::{Fold, Projector};
use antiphon_core::rng;
use antiphon_core::spec::{Alpha, ApplyTo, ProjectionSpec, Reset};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// How far a number computed in `T` may be from its vector, relative to the vector where that is above 1.
trait Tolerance: Real {
    const TOLERANCE: f64;
}

impl Tolerance for f64 {
    const TOLERANCE: f64 = 1e-9;
}

impl Tolerance for f32 {
    const TOLERANCE: f64 = 1e-4;
}

fn read<V: DeserializeOwned>(text: &str) -> V {
    serde_json::from_str(text).expect("the vectors have the shape that make_vectors.py gives them")
}

fn assert_close<T: Tolerance>(what: &str, ours: f64, theirs: f64) {
    let allowed = T::TOLERANCE * theirs.abs().max(1.0);
    assert!((ours - theirs).abs() <= allowed, "{what}: {ours} is not {theirs}");
}

fn assert_all_close<T: Tolerance>(what: &str, ours: &[T], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len(), "{what}: lengths differ");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert_close::<T>(&format!("{what}, element {i}"), a.to_f64(), *b);
    }
}

fn vector<T: Real>(numbers: &[f64]) -> Vec<T> {
    numbers.iter().map(|v| T::from_f64(*v)).collect()
}

fn matrix<T: Real>(rows: &[Vec<f64>]) -> Matrix<T> {
    Matrix::from_vec(rows.len(), rows[0].len(), vector(&rows.concat())).expect("all rows are as long as the first")
}

fn modality(name: &str) -> ModalityName {
    ModalityName::try_from(name).expect("the vectors' modalities have good names")
}

#[derive(Deserialize)]
struct Rls {
    s: usize,
    gradient: Vec<Vec<f64>>,
    steps: Vec<RlsStep>,
    constant_alpha: ConstantAlpha,
}

#[derive(Deserialize)]
struct RlsStep {
    h: Vec<f64>,
    alpha: f64,
    projector: Vec<Vec<f64>>,
    projected: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct ConstantAlpha {
    alpha: f64,
    rows: Vec<Vec<f64>>,
    projector: Vec<Vec<f64>>,
}

fn check_folds<T: Tolerance>() {
    let vectors: Rls = read(include_str!("../vectors/rls.json"));
    let spec = ProjectionSpec::Rls { alpha: Alpha::Decay, reset: Reset::Never, apply_to: ApplyTo::Gradient };
    let mut projector = Projector::<T>::new(&spec, vectors.s);
    let gradient = matrix::<T>(&vectors.gradient);
    for (t, step) in vectors.steps.iter().enumerate() {
        let alpha = alpha_decay(t as u64, 6);
        assert_close::<f64>("alpha", alpha, step.alpha);
        projector.end_turn(&modality("a"), vec![Fold { mean_features: vector(&step.h), alpha }]);
        assert_all_close("P", projector.matrix().as_slice(), &step.projector.concat());
        assert_all_close("G P", gradient.times(projector.matrix()).as_slice(), &step.projected.concat());
    }
}

fn check_closed_form<T: Tolerance>() {
    let vectors: Rls = read(include_str!("../vectors/rls.json"));
    let ConstantAlpha { alpha, rows, projector } = vectors.constant_alpha;
    let folds = || rows.iter().map(|row| Fold { mean_features: vector(row), alpha });

    let spec = ProjectionSpec::Rls { alpha: Alpha::Constant(alpha), reset: Reset::Never, apply_to: ApplyTo::Gradient };
    let mut folded = Projector::<T>::new(&spec, vectors.s);
    folded.end_turn(&modality("a"), folds().collect());
    assert_all_close("P by folds", folded.matrix().as_slice(), &projector.concat());

    let spec = ProjectionSpec::Window { alpha, turns: 7, apply_to: ApplyTo::Gradient };
    let mut window = Projector::<T>::new(&spec, vectors.s);
    for fold in folds() {
        window.end_turn(&modality("a"), vec![fold]);
    }
    let closed = window.matrix_for_turn_of(&modality("b")).expect("a window has a projector for every turn");
    assert_all_close("P in closed form", closed.as_slice(), &projector.concat());
}

#[derive(Deserialize)]
struct FusionVectors {
    logits: Vec<Vec<Vec<f64>>>,
    present: Vec<Vec<bool>>,
    entropy: Vec<Vec<f64>>,
    weights: Vec<Vec<f64>>,
    fused: Vec<Vec<f64>>,
    argmax: Vec<usize>,
}

fn check_fusion<T: Tolerance>() {
    let vectors: FusionVectors = read(include_str!("../vectors/fusion.json"));
    let (modalities, samples) = (vectors.logits.len(), vectors.logits[0].len());
    for i in 0..samples {
        let logits: Vec<Vec<T>> = (0..modalities).map(|m| vector(&vectors.logits[m][i])).collect();
        let given: Vec<Option<&[T]>> =
            (0..modalities).map(|m| vectors.present[m][i].then_some(logits[m].as_slice())).collect();
        let fused = fusion::fuse(&FusionRule::Entropy, &given);
        for (m, z) in logits.iter().enumerate() {
            assert_close::<T>("entropy", fusion::entropy(z), vectors.entropy[m][i]);
            assert_close::<T>("weight", fused.weights[m], vectors.weights[m][i]);
        }
        for (ours, theirs) in fused.logits.iter().zip(&vectors.fused[i]) {
            assert_close::<T>("fused logit", *ours, *theirs);
        }
        assert_eq!(argmax(&fused.logits), vectors.argmax[i]);
    }
}

#[derive(Deserialize)]
struct StreamVectors {
    seed: u64,
    path: Vec<PathComponent>,
    numbers: Vec<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PathComponent {
    Number(u64),
    Text(String),
}

impl<'a> From<&'a PathComponent> for rng::Component<'a> {
    fn from(component: &'a PathComponent) -> Self {
        match component {
            PathComponent::Number(number) => (*number).into(),
            PathComponent::Text(text) => text.into(),
        }
    }
}

#[test]
fn folds_of_the_projector_agree() {
    check_folds::<f64>();
    check_folds::<f32>();
}

#[test]
fn the_closed_form_of_the_projector_agrees() {
    check_closed_form::<f64>();
    check_closed_form::<f32>();
}

#[test]
fn fusion_by_entropy_agrees() {
    check_fusion::<f64>();
    check_fusion::<f32>();
}

#[test]
fn random_streams_agree_to_the_last_bit() {
    let vectors: Vec<StreamVectors> = read(include_str!("../vectors/rng.json"));
    for case in vectors {
        let path: Vec<rng::Component<'_>> = case.path.iter().map(Into::into).collect();
        let mut stream = rng::stream(case.seed, &path);
        for number in case.numbers {
            let unit = (number >> 11) as f64 / (1_u64 << 53) as f64;
            assert_eq!(rng::uniform(&mut stream), unit);
        }
    }
}

#[test]
fn a_run_without_projection_agrees() {
    trace::check::<f64>("off");
    trace::check::<f32>("off");
}

#[test]
fn a_run_with_projected_gradients_agrees() {
    trace::check::<f64>("rls_gradient");
    trace::check::<f32>("rls_gradient");
}

#[test]
fn a_run_with_projected_updates_agrees() {
    trace::check::<f64>("rls_update");
    trace::check::<f32>("rls_update");
}

#[test]
fn a_run_with_a_window_agrees() {
    trace::check::<f64>("window_update");
    trace::check::<f32>("window_update");
}
