//! The cost of the head's half of a turn, compared with the least that the machine needs: one pass over the same
//! memory, or one bare product of the same size.
//!
//!     cargo bench -p antiphon-core                             on the threads of rayon's global pool
//!     RAYON_NUM_THREADS=1 cargo bench -p antiphon-core         on one
//!     cargo bench -p antiphon-core -- 'fold|pass'              these only

use std::hint::black_box;
use std::time::{Duration, Instant};

use antiphon_core::head::{Contribution, Head, HeadGradient, SharedHead, StepContext};
use antiphon_core::ids::ModalityName;
use antiphon_core::linalg::Matrix;
use antiphon_core::projector::{Fold, Projector};
use antiphon_core::spec::{
    Alpha, ApplyTo, HeadSpec, LearningRateSchedule, OptimizerRule, OptimizerSpec, ProjectionSpec, Reset,
};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;

/// Width, classes, samples: a ResNet-18 on ten classes, a transformer on the 101 classes of Food-101, and a large head.
const SIZES: [(usize, usize, usize); 3] = [(512, 10, 64), (768, 101, 64), (4096, 1000, 64)];
const AT: StepContext = StepContext { lr_factor: 1e-3, alpha: 0.1 };

fn numbers(count: usize, phase: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.7 + phase).sin()).collect()
}

fn matrix(rows: usize, columns: usize, phase: f32) -> Matrix<f32> {
    Matrix::from_vec(rows, columns, numbers(rows * columns, phase)).expect("a number for each element")
}

fn modality(name: &str) -> ModalityName {
    ModalityName::try_from(name).expect("a name")
}

fn rls() -> ProjectionSpec {
    ProjectionSpec::Rls { alpha: Alpha::Constant(0.1), reset: Reset::Never, apply_to: ApplyTo::Gradient }
}

fn window(turns: u32) -> ProjectionSpec {
    ProjectionSpec::Window { alpha: 0.1, turns, apply_to: ApplyTo::Gradient }
}

fn sgd() -> OptimizerRule {
    OptimizerRule::Sgd { momentum: 0.9, weight_decay: 1e-4 }
}

fn adamw() -> OptimizerRule {
    OptimizerRule::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
}

fn shared(width: usize, classes: usize, projection: ProjectionSpec, rule: OptimizerRule) -> SharedHead<f32> {
    let schedule = LearningRateSchedule::Constant { warmup: 0.0 };
    let optimizer = OptimizerSpec { rule, lr: 1e-3, schedule, clip: None };
    SharedHead::new(&HeadSpec { width: width as u32, projection, optimizer }, classes, 1)
}

fn labels(batch: usize, classes: usize) -> Vec<u32> {
    (0..batch).map(|i| (i * 7 % classes) as u32).collect()
}

fn contribution(head: &Head<f32>, batch: usize) -> Contribution<f32> {
    let features = matrix(batch, head.width(), 0.3);
    head.local_step(features, &labels(batch, head.classes())).expect("a good batch").contribution
}

/// A fold, compared with a pass that reads and writes as many bytes: P ← P · 0.999.
fn folds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fold");
    for width in [512, 768, 2048, 4096] {
        group.throughput(Throughput::Bytes((2 * width * width * size_of::<f32>()) as u64));
        let mut projector = Projector::<f32>::new(&rls(), width);
        let name = modality("a");
        let step = Fold { mean_features: numbers(width, 0.1), alpha: 0.1 };
        group.bench_function(BenchmarkId::new("fold", width), |bench| {
            let steps = || vec![step.clone()];
            bench.iter_batched(steps, |steps| projector.end_turn(&name, steps), BatchSize::SmallInput);
        });
        let mut bytes = numbers(width * width, 0.2);
        group.bench_function(BenchmarkId::new("pass", width), |bench| {
            bench.iter(|| {
                bytes.par_chunks_mut(1 << 15).for_each(|block| block.iter_mut().for_each(|x| *x *= 0.999));
                black_box(&mut bytes);
            });
        });
    }
    group.finish();
}

/// Dᵀ (H P), the order for few samples, and G P, compared with the `gemm` crate's time for as many multiplications.
fn projections(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("projection");
    for (width, classes, batch) in SIZES {
        let (errors, features) = (matrix(batch, classes, 0.1), matrix(batch, width, 0.2));
        let (gradient, projector) = (matrix(classes, width, 0.3), matrix(width, width, 0.4));
        let shape = format!("s={width},C={classes},B={batch}");
        group.throughput(Throughput::Elements((batch * width * (width + classes)) as u64));
        group.bench_function(BenchmarkId::new("DᵀHP", &shape), |bench| {
            bench.iter(|| errors.transposed_times(&features.times(&projector)));
        });
        group.bench_function(BenchmarkId::new("DᵀHP bare", &shape), |bench| {
            let (mut middle, mut out) = (vec![0.0; batch * width], vec![0.0; classes * width]);
            bench.iter(|| {
                bare(&mut middle, (batch, width, width), features.as_slice(), (width, 1), projector.as_slice());
                bare(&mut out, (classes, batch, width), errors.as_slice(), (1, classes), &middle);
                black_box(&mut out);
            });
        });
        group.throughput(Throughput::Elements((classes * width * width) as u64));
        group.bench_function(BenchmarkId::new("GP", &shape), |bench| bench.iter(|| gradient.times(&projector)));
        group.bench_function(BenchmarkId::new("GP bare", &shape), |bench| {
            let mut out = vec![0.0; classes * width];
            bench.iter(|| {
                bare(&mut out, (classes, width, width), gradient.as_slice(), (width, 1), projector.as_slice());
                black_box(&mut out);
            });
        });
    }
    group.finish();
}

/// out (m, n) = left (m, k) · right (k, n), `left` with these strides, on one thread.
#[allow(unsafe_code)]
fn bare(out: &mut [f32], (m, k, n): (usize, usize, usize), left: &[f32], (row, column): (usize, usize), right: &[f32]) {
    assert!(out.len() == m * n && left.len() == m * k && right.len() == k * n);
    let (width, row, column) = (n as isize, row as isize, column as isize);
    // SAFETY: the three slices have exactly these sizes, and `left` is laid out by rows or by columns.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            width,
            false,
            left.as_ptr(),
            column,
            row,
            right.as_ptr(),
            1,
            width,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The worker's half of a step.
fn local_steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("local_step");
    for (width, classes, batch) in SIZES {
        let head = Head::<f32>::initial(1, classes, width);
        let (features, labels) = (matrix(batch, width, 0.2), labels(batch, classes));
        group.bench_function(format!("s={width},C={classes},B={batch}"), |bench| {
            bench.iter_batched(
                || features.clone(),
                |features| head.local_step(features, &labels),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// The coordinator's half: one step, and one whole turn.
fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turn");
    let kinds = [("rls, sgd", rls(), sgd()), ("rls, adamw", rls(), adamw()), ("window, sgd", window(32), sgd())];
    for (width, classes, batch) in SIZES {
        for (kind, projection, rule) in &kinds {
            let shape = format!("{kind},s={width},C={classes},B={batch}");
            let mut shared = shared(width, classes, projection.clone(), rule.clone());
            let sent = contribution(shared.head(), batch);
            let dense = matches!(sent.gradient, HeadGradient::Dense(_));
            let (a, b) = (modality("a"), modality("b"));
            for i in 0..32 {
                shared.apply(if i % 2 == 0 { &a } else { &b }, &sent, AT).expect("a good contribution");
                shared.end_turn();
            }
            // A turn has both, so that no state grows. Only one of them is timed.
            group.bench_function(BenchmarkId::new(format!("apply, dense: {dense}"), &shape), |bench| {
                bench.iter_custom(|count| {
                    let apply = |_| {
                        let took = clocked(|| shared.apply(&b, &sent, AT).map(drop).expect("a good contribution"));
                        shared.end_turn();
                        took
                    };
                    (0..count).map(apply).sum()
                });
            });
            group.bench_function(BenchmarkId::new("end_turn", &shape), |bench| {
                bench.iter_custom(|count| {
                    let end = |_| {
                        shared.apply(&b, &sent, AT).expect("a good contribution");
                        clocked(|| shared.end_turn())
                    };
                    (0..count).map(end).sum()
                });
            });
        }
    }
    group.finish();
}

#[allow(clippy::disallowed_methods, reason = "a benchmark is there to read the clock")]
fn clocked(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

criterion_group! {
    name = head;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    targets = folds, projections, local_steps, turns
}
criterion_main!(head);
