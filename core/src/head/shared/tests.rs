use super::super::contribution::HeadGradient;
use super::*;
use crate::linalg::{Matrix, norm};
use crate::spec::{Alpha, LearningRateSchedule, OptimizerSpec, Reset};

const AT: StepContext = StepContext { lr_factor: 1.0, alpha: 0.1 };

fn spec(projection: ProjectionSpec, momentum: f64, clip: Option<f64>) -> HeadSpec {
    let rule = OptimizerRule::Sgd { momentum, weight_decay: 0.0 };
    let schedule = LearningRateSchedule::Constant { warmup: 0.0 };
    HeadSpec { width: 6, projection, optimizer: OptimizerSpec { rule, lr: 0.1, schedule, clip } }
}

fn rls(apply_to: ApplyTo) -> ProjectionSpec {
    ProjectionSpec::Rls { alpha: Alpha::Constant(0.1), reset: Reset::Never, apply_to }
}

fn window(turns: u32) -> ProjectionSpec {
    ProjectionSpec::Window { alpha: 0.1, turns, apply_to: ApplyTo::Gradient }
}

fn every_projection() -> Vec<ProjectionSpec> {
    vec![ProjectionSpec::Off, rls(ApplyTo::Gradient), rls(ApplyTo::Update), window(3)]
}

fn modality(name: &str) -> ModalityName {
    ModalityName::try_from(name).expect("a name")
}

fn features(phase: f64) -> Matrix<f64> {
    let data = (0..24).map(|i| (f64::from(i) * 0.7 + phase).sin() + 0.3).collect();
    Matrix::from_vec(4, 6, data).expect("four rows of six")
}

fn contribution(shared: &SharedHead<f64>, phase: f64) -> Contribution<f64> {
    shared.head().local_step(features(phase), &[0, 1, 2, 1]).expect("a good batch").contribution
}

fn step(shared: &mut SharedHead<f64>, name: &str, phase: f64) -> StepReport {
    let contribution = contribution(shared, phase);
    shared.apply(&modality(name), &contribution, AT).expect("a good contribution")
}

fn turn(shared: &mut SharedHead<f64>, name: &str, phase: f64) -> StepReport {
    let report = step(shared, name, phase);
    shared.end_turn();
    report
}

fn difference(a: &Matrix<f64>, b: &Matrix<f64>) -> Matrix<f64> {
    let elements = a.as_slice().iter().zip(b.as_slice()).map(|(x, y)| x - y).collect();
    Matrix::from_vec(a.rows(), a.cols(), elements).expect("both are of one shape")
}

fn distance(a: &Matrix<f64>, b: &Matrix<f64>) -> f64 {
    difference(a, b).norm()
}

#[test]
fn a_step_is_linear_in_its_gradient() {
    for projection in every_projection() {
        let mut start = SharedHead::<f64>::new(&spec(projection, 0.0, None), 3, 7);
        turn(&mut start, "b", 0.4);
        let gradient = contribution(&start, 0.9).dense();
        let moved = |by: f64| {
            let mut shared = start.clone();
            let scaled = HeadGradient::Dense(gradient.map(|g| by * g));
            let scaled = Contribution { gradient: scaled, ..contribution(&start, 0.9) };
            shared.apply(&modality("a"), &scaled, AT).expect("a good contribution");
            difference(shared.head().weight(), start.head().weight())
        };
        assert!(distance(&moved(3.0), &moved(1.0).map(|d| 3.0 * d)) < 1e-14);
    }
}

#[test]
fn both_forms_of_a_gradient_mean_the_same_step() {
    for projection in every_projection() {
        let mut one = SharedHead::<f64>::new(&spec(projection, 0.9, None), 3, 7);
        turn(&mut one, "b", 0.4);
        let mut other = one.clone();
        let sent = contribution(&one, 0.2);
        let errors = {
            let logits = one.head().logits(&features(0.2));
            let mut errors = Matrix::zeros(4, 3);
            for (i, label) in [0, 1, 2, 1].into_iter().enumerate() {
                let (p, _) = crate::linalg::softmax(logits.row(i));
                for (c, (error, p)) in errors.row_mut(i).iter_mut().zip(p).enumerate() {
                    *error = (p - f64::from(u8::from(c == label))) / 4.0;
                }
            }
            errors
        };
        let factors =
            Contribution { gradient: HeadGradient::Factors { errors, features: features(0.2) }, ..sent.clone() };
        one.apply(&modality("a"), &sent, AT).expect("a good contribution");
        other.apply(&modality("a"), &factors, AT).expect("a good contribution");
        assert!(distance(one.head().weight(), other.head().weight()) < 1e-14);
    }
}

#[test]
fn factors_are_projected_one_by_one_where_that_is_cheaper() {
    let (errors, features) = (Matrix::from_vec(1, 3, vec![0.5, -0.2, -0.3]), Matrix::from_vec(1, 6, vec![1.0; 6]));
    let (errors, features) = (errors.expect("three"), features.expect("six"));
    for projection in [rls(ApplyTo::Gradient), window(3)] {
        let mut one = SharedHead::<f64>::new(&spec(projection, 0.9, Some(0.1)), 3, 7);
        turn(&mut one, "b", 0.4);
        let mut other = one.clone();
        let sent = Contribution {
            gradient: HeadGradient::Factors { errors: errors.clone(), features: features.clone() },
            bias_gradient: vec![0.5, -0.2, -0.3],
            mean_features: vec![1.0; 6],
            loss: 1.0,
            correct: 0,
            samples: 1,
        };
        let dense = Contribution { gradient: HeadGradient::Dense(sent.dense()), ..sent.clone() };
        let reports = [
            one.apply(&modality("a"), &sent, AT).expect("a good contribution"),
            other.apply(&modality("a"), &dense, AT).expect("a good contribution"),
        ];
        assert!(distance(one.head().weight(), other.head().weight()) < 1e-15);
        assert!((reports[0].gradient_norm - reports[1].gradient_norm).abs() < 1e-14);
        assert!((reports[0].projected_ratio - reports[1].projected_ratio).abs() < 1e-14);
        assert!((reports[0].update_norm - reports[1].update_norm).abs() < 1e-15);
    }
}

#[test]
fn a_projected_step_hardly_changes_logits_of_earlier_features() {
    for apply_to in [ApplyTo::Gradient, ApplyTo::Update] {
        let mut shared = SharedHead::<f64>::new(&spec(rls(apply_to), 0.0, None), 3, 7);
        for _ in 0..200 {
            turn(&mut shared, "a", 0.1);
        }
        let mean = contribution(&shared, 0.1).mean_features;
        let mean = Matrix::from_vec(1, 6, mean).expect("one row");
        let before = shared.head().clone();
        let report = turn(&mut shared, "b", 2.0);
        let change = difference(shared.head().weight(), before.weight());
        assert!(change.norm() > 1e-4, "the head still learns");
        assert!(mean.times_transposed(&change).norm() < 1e-2 * change.norm() * mean.norm());
        assert!(report.projected_ratio < 1.0);
    }
}

#[test]
fn the_projector_changes_only_at_the_end_of_a_turn() {
    for projection in [rls(ApplyTo::Gradient), window(3)] {
        let mut shared = SharedHead::<f64>::new(&spec(projection, 0.9, None), 3, 7);
        turn(&mut shared, "b", 0.4);
        step(&mut shared, "a", 0.1);
        let within = shared.projector().clone();
        step(&mut shared, "a", 0.2);
        assert_eq!(shared.projector(), &within);
        assert_eq!(shared.open_turn(), Some(&modality("a")));
        shared.end_turn();
        assert_ne!(shared.projector(), &within);
        assert_eq!(shared.open_turn(), None);
    }
}

#[test]
fn the_steps_of_a_turn_are_folded_in_order_as_if_one_by_one() {
    let mut shared = SharedHead::<f64>::new(&spec(rls(ApplyTo::Update), 0.9, None), 3, 7);
    let mut expected = shared.projector().clone();
    for phase in [0.1, 0.2, 0.3] {
        let mean_features = contribution(&shared, phase).mean_features;
        expected.end_turn(&modality("a"), vec![Fold { mean_features, alpha: 0.1 }]);
        step(&mut shared, "a", phase);
    }
    shared.end_turn();
    assert_eq!(shared.projector().matrix(), expected.matrix());
    let ended = shared.clone();
    shared.end_turn();
    assert_eq!(shared, ended, "ending a turn twice does nothing");
}

#[test]
fn bias_is_never_projected() {
    let mut heads = every_projection().into_iter().map(|projection| {
        let mut shared = SharedHead::<f64>::new(&spec(projection, 0.9, None), 3, 7);
        for _ in 0..2 {
            let sent = contribution(&SharedHead::new(&spec(ProjectionSpec::Off, 0.9, None), 3, 7), 0.4);
            shared.apply(&modality("a"), &sent, AT).expect("a good contribution");
            shared.end_turn();
        }
        shared.head().bias().to_vec()
    });
    let first = heads.next().expect("there are projections");
    assert!(heads.all(|bias| bias == first));
}

#[test]
fn clipping_bounds_the_step_of_weight_and_bias_together() {
    let mut free = SharedHead::<f64>::new(&spec(ProjectionSpec::Off, 0.0, None), 3, 7);
    let start = free.head().clone();
    let mut clipped = SharedHead::<f64>::new(&spec(ProjectionSpec::Off, 0.0, Some(0.01)), 3, 7);
    step(&mut free, "a", 0.1);
    step(&mut clipped, "a", 0.1);
    let moved = |shared: &SharedHead<f64>| {
        let bias: Vec<f64> = shared.head().bias().iter().zip(start.bias()).map(|(x, y)| x - y).collect();
        difference(shared.head().weight(), start.weight()).norm().hypot(norm(&bias))
    };
    assert!(moved(&free) > 0.002);
    assert!((moved(&clipped) - 0.1 * 0.01).abs() < 1e-15);
}

#[test]
fn a_report_says_what_was_done() {
    let mut shared = SharedHead::<f64>::new(&spec(ProjectionSpec::Off, 0.0, None), 3, 7);
    let gradient = contribution(&shared, 0.1).dense();
    let report = step(&mut shared, "a", 0.1);
    assert_eq!(report.version, HeadVersion(1));
    assert_eq!(report.projected_ratio, 1.0);
    assert!((report.gradient_norm - gradient.norm()).abs() < 1e-15);
    assert!((report.update_norm - 0.1 * gradient.norm()).abs() < 1e-15);
    assert_eq!(shared.projector_trace(), 6.0);
    let context = StepContext { lr_factor: 0.0, ..AT };
    let sent = contribution(&shared, 0.2);
    let report = shared.apply(&modality("a"), &sent, context).expect("a good contribution");
    assert_eq!(report.update_norm, 0.0);
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut shared = SharedHead::<f32>::new(&spec(window(2), 0.9, None), 3, 7);
    let features = || features(0.1).map(|v| v as f32);
    let good = shared.head().local_step(features(), &[0, 1, 2, 1]).expect("a good batch").contribution;
    shared.apply(&modality("a"), &good, AT).expect("a good contribution");
    shared.end_turn();
    shared.apply(&modality("b"), &good, AT).expect("a good contribution");
    let untouched = shared.clone();
    let huge = HeadGradient::Dense(Matrix::from_vec(3, 6, vec![1e18_f32; 18]).expect("18"));
    let nan = HeadGradient::Dense(Matrix::from_vec(3, 6, vec![f32::NAN; 18]).expect("18"));
    let wrong = HeadGradient::Dense(Matrix::zeros(6, 3));
    let cases = [
        ("a", Contribution { loss: 1.0, ..good.clone() }, AT, "within a turn of `b`"),
        ("b", Contribution { gradient: nan, ..good.clone() }, AT, "`gradient` holds NaN at element 0"),
        ("b", Contribution { gradient: wrong, ..good.clone() }, AT, "`gradient` has shape [6, 3]"),
        (
            "b",
            Contribution { gradient: huge, ..good.clone() },
            StepContext { lr_factor: 1e30, ..AT },
            "would make the head's weight infinite or NaN",
        ),
    ];
    for (name, sent, at, message) in cases {
        let error = shared.apply(&modality(name), &sent, at).expect_err(message).to_string();
        assert!(error.contains(message), "{error}");
        assert_eq!(shared, untouched);
    }
}

#[test]
fn a_head_resumes_from_its_files_to_the_last_bit() {
    let adamw = OptimizerRule::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    for projection in every_projection() {
        for rule in [OptimizerRule::Sgd { momentum: 0.9, weight_decay: 1e-4 }, adamw.clone()] {
            let mut spec = spec(projection.clone(), 0.9, None);
            spec.optimizer.rule = rule;
            let mut shared = SharedHead::<f64>::new(&spec, 3, 7);
            for (i, name) in ["a", "b", "a", "b", "b"].into_iter().enumerate() {
                turn(&mut shared, name, i as f64);
            }
            let files = shared.to_files().expect("no turn is open");
            let mut resumed = SharedHead::from_files(&spec, 3, &files).expect("its own files");
            assert_eq!(resumed, shared);
            assert_eq!(turn(&mut resumed, "a", 9.0), turn(&mut shared, "a", 9.0));
            assert_eq!(resumed, shared);
        }
    }
}

#[test]
fn files_that_do_not_fit_say_why() {
    let spec = spec(window(2), 0.9, None);
    let mut shared = SharedHead::<f64>::new(&spec, 3, 7);
    step(&mut shared, "a", 0.1);
    let open = shared.to_files().expect_err("a turn is open").to_string();
    assert_eq!(open, "a turn of `a` is open; end it before the head is saved");
    shared.end_turn();
    let files = shared.to_files().expect("no turn is open");
    let message = |classes, files| SharedHead::from_files(&spec, classes, files).expect_err("bad files").to_string();

    assert_eq!(
        message(4, &files),
        "tensor `weight` has shape [3, 6] but this job needs [4, 6]; use a checkpoint of a \
         job with the same head and labels"
    );
    let mut without = files.clone();
    without.projector.tensors.retain(|t| t.name != "window");
    assert_eq!(
        message(3, &without),
        "there is no tensor `window`; use a checkpoint of a job with the same `head` \
         section"
    );
    let mut damaged = files.clone();
    damaged.head.tensors[1].data[2] = f64::NAN;
    assert_eq!(
        message(3, &damaged),
        "tensor `bias` is infinite or NaN at element 2; the file is damaged: use another \
         checkpoint"
    );
    let mut garbled = files.clone();
    garbled.state.note = "{".into();
    assert!(message(3, &garbled).starts_with("the JSON note of the head state cannot be read: "));
}

#[test]
fn a_reset_makes_the_projector_the_identity_and_leaves_the_head() {
    let mut shared = SharedHead::<f64>::new(&spec(rls(ApplyTo::Gradient), 0.9, None), 3, 7);
    turn(&mut shared, "a", 0.1);
    let head = shared.head().clone();
    assert!(shared.projector_trace() < 6.0);
    shared.reset_projector();
    assert_eq!((shared.projector_trace(), shared.head()), (6.0, &head));
}
