//! The head's mathematics has the same bits on any number of threads, and those of plain loops.
//!
//! Sizes are no multiples of block sizes, and large enough that every operation is divided into several blocks for
//! several threads.

use antiphon_core::head::{Contribution, Head, HeadGradient, SharedHead, StepContext};
use antiphon_core::ids::ModalityName;
use antiphon_core::linalg::Matrix;
use antiphon_core::projector::{Fold, Projector};
use antiphon_core::spec::{
    Alpha, ApplyTo, HeadSpec, LearningRateSchedule, OptimizerRule, OptimizerSpec, ProjectionSpec, Reset,
};

const WIDTH: usize = 1061;
const CLASSES: usize = 203;
const BATCH: usize = 37;
const SGD: OptimizerRule = OptimizerRule::Sgd { momentum: 0.9, weight_decay: 1e-4 };
const ADAMW: OptimizerRule = OptimizerRule::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };

fn numbers(count: usize, phase: f64) -> Vec<f32> {
    (0..count).map(|i| ((i as f64 * 0.7 + phase).sin() * 0.8) as f32).collect()
}

fn matrix(rows: usize, columns: usize, phase: f64) -> Matrix<f32> {
    Matrix::from_vec(rows, columns, numbers(rows * columns, phase)).expect("a number for each element")
}

fn modality(name: &str) -> ModalityName {
    ModalityName::try_from(name).expect("a name")
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn rls(apply_to: ApplyTo) -> ProjectionSpec {
    ProjectionSpec::Rls { alpha: Alpha::Constant(0.1), reset: Reset::Never, apply_to }
}

fn window(turns: u32, apply_to: ApplyTo) -> ProjectionSpec {
    ProjectionSpec::Window { alpha: 0.1, turns, apply_to }
}

fn spec(projection: ProjectionSpec, rule: OptimizerRule, clip: Option<f64>) -> HeadSpec {
    let schedule = LearningRateSchedule::Constant { warmup: 0.0 };
    HeadSpec { width: WIDTH as u32, projection, optimizer: OptimizerSpec { rule, lr: 0.01, schedule, clip } }
}

fn at(turn: usize) -> StepContext {
    StepContext { lr_factor: 1.0 / (turn + 1) as f64, alpha: 0.1 }
}

fn labels() -> Vec<u32> {
    (0..BATCH).map(|i| (i * 11 % CLASSES) as u32).collect()
}

/// D and H, or G, alternately.
fn contribution(head: &Head<f32>, turn: usize) -> Contribution<f32> {
    let features = matrix(BATCH, WIDTH, turn as f64);
    let sent = head.local_step(features, &labels()).expect("a good batch").contribution;
    match &sent.gradient {
        HeadGradient::Factors { errors, features } if turn % 2 == 1 => {
            let gradient = HeadGradient::Dense(errors.transposed_times(features));
            Contribution { gradient, ..sent }
        }
        _ => sent,
    }
}

/// The results of some turns, as bits.
fn run(spec: &HeadSpec) -> (Vec<u32>, Vec<u64>) {
    let mut shared = SharedHead::<f32>::new(spec, CLASSES, 3);
    let mut reports = Vec::new();
    for turn in 0..4 {
        let name = modality(if turn % 2 == 0 { "a" } else { "b" });
        for step in 0..2 {
            let sent = contribution(shared.head(), 2 * turn + step);
            let report = shared.apply(&name, &sent, at(turn)).expect("a good contribution");
            reports.extend([report.gradient_norm, report.projected_ratio, report.update_norm].map(f64::to_bits));
            reports.push(shared.projector_trace().to_bits());
        }
        shared.end_turn();
    }
    let files = shared.to_files().expect("no turn is open");
    let tensors = [files.head, files.state, files.projector].into_iter().flat_map(|file| file.tensors);
    (tensors.flat_map(|tensor| bits(&tensor.data)).collect(), reports)
}

/// `work` on pools of 1, 2, 3 and 5 threads.
fn assert_same<R: PartialEq + Send>(what: &str, work: impl Fn() -> R + Sync) {
    let mut results = [1, 2, 3, 5].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        (threads, Some(pool.install(&work)))
    });
    let first = results[0].1.take();
    for (threads, result) in &results[1..] {
        assert!(*result == first, "{what} has other bits on {threads} threads than on one");
    }
}

#[test]
fn a_run_has_the_same_bits_on_any_number_of_threads() {
    let projections = [
        ProjectionSpec::Off,
        rls(ApplyTo::Gradient),
        rls(ApplyTo::Update),
        window(3, ApplyTo::Gradient),
        window(3, ApplyTo::Update),
    ];
    for projection in projections {
        for (rule, clip) in [(SGD, None), (SGD, Some(1e-3)), (ADAMW, Some(1e-3))] {
            let spec = spec(projection.clone(), rule, clip);
            assert_same(&format!("{spec:?}"), || run(&spec));
        }
    }
}

#[test]
fn the_workers_half_has_the_same_bits_on_any_number_of_threads() {
    let head = Head::<f32>::initial(1, CLASSES, WIDTH);
    assert_same("a local step", || {
        let step = head.local_step(matrix(BATCH, WIDTH, 0.2), &labels()).expect("a good batch");
        let HeadGradient::Factors { errors, features } = &step.contribution.gradient else {
            panic!("D and H are smaller than G");
        };
        let gradients = [errors.as_slice(), features.as_slice(), &step.contribution.bias_gradient].map(bits);
        (gradients, bits(step.feature_gradient.as_slice()), step.contribution.loss.to_bits())
    });
    assert_same("logits", || bits(head.logits(&matrix(BATCH, WIDTH, 0.2)).as_slice()));
}

#[test]
fn sums_and_products_have_the_same_bits_on_all_thread_counts() {
    let (a, b) = (matrix(CLASSES, WIDTH, 0.1), matrix(WIDTH, WIDTH, 0.2));
    assert_same("A B", || bits(a.times(&b).as_slice()));
    assert_same("A Bᵀ", || bits(a.times_transposed(&b).as_slice()));
    assert_same("Aᵀ B", || bits(b.transposed_times(&b).as_slice()));
    assert_same("a norm", || b.norm().to_bits());
    assert_same("sums of columns", || b.column_sums().into_iter().map(f64::to_bits).collect::<Vec<_>>());
}

#[test]
fn the_features_gradient_is_the_same_early_and_late() {
    let head = Head::<f32>::initial(1, CLASSES, WIDTH);
    let at_once = head.local_step(matrix(BATCH, WIDTH, 0.2), &labels()).expect("a good batch");
    let (contribution, errors) = head.contribution(matrix(BATCH, WIDTH, 0.2), &labels()).expect("a good batch");
    assert_eq!(contribution, at_once.contribution);
    assert_eq!(head.feature_gradient(&errors), at_once.feature_gradient);
}

/// The dot product that determines the projector's bits.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        lanes[i % 16] += x * y;
    }
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

#[test]
fn folds_have_the_bits_of_plain_loops_and_stay_symmetric() {
    let steps: Vec<Fold<f32>> =
        (0..3).map(|i| Fold { mean_features: numbers(WIDTH, i as f64), alpha: 0.1 + i as f64 }).collect();
    let mut expected = Matrix::<f32>::identity(WIDTH);
    for step in &steps {
        let k: Vec<f32> = expected.iter_rows().map(|row| dot(row, &step.mean_features)).collect();
        let inverse = (1.0 / (step.alpha + f64::from(dot(&step.mean_features, &k)).max(0.0))) as f32;
        for (i, k_i) in k.iter().enumerate() {
            for (p, k_j) in expected.row_mut(i).iter_mut().zip(&k) {
                *p -= (k_i * k_j) * inverse;
            }
        }
    }
    let mut together = Projector::<f32>::new(&rls(ApplyTo::Gradient), WIDTH);
    let mut one_by_one = together.clone();
    together.end_turn(&modality("a"), steps.clone());
    steps.into_iter().for_each(|step| one_by_one.end_turn(&modality("a"), vec![step]));
    assert_eq!(bits(together.matrix().as_slice()), bits(expected.as_slice()));
    assert_eq!(bits(one_by_one.matrix().as_slice()), bits(expected.as_slice()));
    assert_eq!(together.matrix().transpose(), expected);
}

/// W, v (or m and v) of a head that took steps with G P in plain loops.
struct Plain {
    weight: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Plain {
    fn sgd(&mut self, gradient: &[f32], lr: f64) {
        let (lr, momentum, decay) = (lr as f32, 0.9_f32, 1e-4_f32);
        for ((p, v), g) in self.weight.iter_mut().zip(&mut self.first).zip(gradient) {
            *v = momentum * *v + (g + decay * *p);
            *p -= lr * *v;
        }
    }

    fn adamw(&mut self, gradient: &[f32], lr: f64, steps: i32) {
        let (shrink, rate) = ((1.0 - lr * 0.01) as f32, (lr / (1.0 - 0.9_f64.powi(steps))) as f32);
        let (keep1, take1, keep2, take2) = (0.9_f32, (1.0 - 0.9_f64) as f32, 0.999_f32, (1.0 - 0.999_f64) as f32);
        let correction = (1.0 - 0.999_f64.powi(steps)) as f32;
        for (((p, m), v), g) in self.weight.iter_mut().zip(&mut self.first).zip(&mut self.second).zip(gradient) {
            *m = keep1 * *m + take1 * g;
            *v = keep2 * *v + take2 * g * g;
            *p = shrink * *p - rate * *m / ((*v / correction).sqrt() + 1e-8);
        }
    }
}

#[test]
fn steps_have_the_bits_of_plain_loops() {
    for (rule, names) in [(SGD, vec!["weight.momentum"]), (ADAMW, vec!["weight.mean", "weight.square"])] {
        let mut shared = SharedHead::<f32>::new(&spec(rls(ApplyTo::Gradient), rule.clone(), None), CLASSES, 3);
        let weight = shared.head().weight().as_slice().to_vec();
        let zeros = vec![0.0; weight.len()];
        let mut plain = Plain { weight, first: zeros.clone(), second: zeros };
        for turn in 0..4 {
            let sent = contribution(shared.head(), turn);
            let projector = shared.projector().matrix();
            let gradient = match &sent.gradient {
                HeadGradient::Dense(gradient) => gradient.times(projector),
                HeadGradient::Factors { errors, features } => errors.transposed_times(&features.times(projector)),
            };
            let lr = 0.01 * at(turn).lr_factor;
            match rule {
                OptimizerRule::Sgd { .. } => plain.sgd(gradient.as_slice(), lr),
                OptimizerRule::Adamw { .. } => plain.adamw(gradient.as_slice(), lr, turn as i32 + 1),
            }
            shared.apply(&modality("a"), &sent, at(turn)).expect("a good contribution");
            shared.end_turn();
            assert_eq!(bits(shared.head().weight().as_slice()), bits(&plain.weight));
        }
        let files = shared.to_files().expect("no turn is open");
        for (name, expected) in names.into_iter().zip([&plain.first, &plain.second]) {
            let tensor = files.state.tensors.iter().find(|tensor| tensor.name == name).expect("the memory of W");
            assert_eq!(bits(&tensor.data), bits(expected));
        }
    }
}

#[test]
fn a_shared_head_stays_as_it_was_while_later_steps_run() {
    let mut shared = SharedHead::<f32>::new(&spec(rls(ApplyTo::Gradient), SGD, None), CLASSES, 3);
    let mut held = Vec::new();
    for turn in 0..6 {
        // All heads are held for a while and then some are dropped, so that steps write into old memory and into new
        // memory.
        if turn == 4 {
            held.truncate(1);
        }
        let head = shared.share();
        assert_eq!(&*head, shared.head());
        held.push((head.clone(), (*head).clone()));
        drop(head);
        let sent = contribution(shared.head(), turn);
        shared.apply(&modality("a"), &sent, at(turn)).expect("a good contribution");
        shared.end_turn();
        assert!(held.iter().all(|(head, copy)| **head == *copy));
        assert_ne!(&held[held.len() - 1].1, shared.head());
    }
}

#[test]
fn an_unreferenced_head_is_overwritten() {
    let mut shared = SharedHead::<f32>::new(&spec(rls(ApplyTo::Gradient), SGD, None), CLASSES, 3);
    let mut places = Vec::new();
    for turn in 0..6 {
        let sent = contribution(shared.head(), turn);
        shared.apply(&modality("a"), &sent, at(turn)).expect("a good contribution");
        places.push(shared.head().weight().as_slice().as_ptr());
    }
    assert!(places[0] != places[1] && (2..6).all(|turn| places[turn] == places[turn - 2]), "two memories, in turns");
}

#[test]
fn a_prepared_window_has_the_same_bits() {
    let run = |prepare: &dyn Fn(&mut SharedHead<f32>, &str)| {
        let spec = spec(window(3, ApplyTo::Gradient), SGD, None);
        let mut shared = SharedHead::<f32>::new(&spec, CLASSES, 3);
        for (turn, name) in ["a", "b", "a", "b"].into_iter().enumerate() {
            let sent = contribution(shared.head(), turn);
            shared.apply(&modality(name), &sent, at(turn)).expect("a good contribution");
            shared.end_turn();
            prepare(&mut shared, if name == "a" { "b" } else { "a" });
        }
        shared
    };
    let plain = run(&|_, _| {});
    assert_eq!(run(&|shared, next| shared.prepare_for(&modality(next))), plain);
    // A projector that was prepared for another modality is not used.
    assert_eq!(run(&|shared, _| shared.prepare_for(&modality("c"))), plain);
}

#[test]
fn the_memory_of_a_head_is_what_is_said() {
    let (weight, projector) = ((CLASSES * (WIDTH + 1)) as u64 * 4, (WIDTH * (WIDTH + 2)) as u64 * 4);
    let bytes = |projection, rule| SharedHead::<f32>::memory_bytes(&spec(projection, rule, None), CLASSES, 2);
    assert_eq!(bytes(ProjectionSpec::Off, SGD), 4 * weight + projector);
    assert_eq!(bytes(rls(ApplyTo::Gradient), SGD), 4 * weight + projector);
    assert_eq!(bytes(rls(ApplyTo::Update), ADAMW), 8 * weight + projector);
    assert_eq!(bytes(window(3, ApplyTo::Gradient), SGD), 4 * weight + projector + 18 * WIDTH as u64 * 4);
    // C = 20,000 and s = 4,096: 1.4 GB.
    let large = HeadSpec { width: 4096, ..spec(rls(ApplyTo::Gradient), SGD, None) };
    assert_eq!(SharedHead::<f32>::memory_bytes(&large, 20_000, 1), 4 * (4 * 20_000 * 4097 + 4096 * 4097));
}
