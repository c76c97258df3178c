use antiphon_core::optimizer as reference;
use antiphon_core::spec::{LearningRateSchedule, TransferSpec};
use candle_core::{DType, Device};

use super::*;
use crate::nn::check::{flat, noise};

pub(super) fn spec(rule: OptimizerRule, clip: Option<f64>) -> OptimizerSpec {
    OptimizerSpec { rule, lr: 0.1, schedule: LearningRateSchedule::Constant { warmup: 0.0 }, clip }
}

pub(super) fn sgd() -> OptimizerRule {
    OptimizerRule::Sgd { momentum: 0.9, weight_decay: 0.01 }
}

pub(super) fn adamw() -> OptimizerRule {
    OptimizerRule::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01 }
}

fn parameters() -> Vec<(String, Var)> {
    let variable = |shape: (usize, usize), seed| Var::from_tensor(&noise(shape, seed)).expect("a variable");
    vec![("weight".to_owned(), variable((3, 4), 1)), ("bias".to_owned(), variable((1, 5), 2))]
}

fn gradients(step: u64) -> Gradients {
    Gradients::new(vec![noise((3, 4), 10 + step), noise((1, 5), 20 + step)])
}

fn values(parameters: &[(String, Var)]) -> Vec<Vec<f64>> {
    parameters.iter().map(|(_, variable)| flat(variable)).collect()
}

#[test]
fn it_steps_as_the_optimizer_of_the_head_does() {
    for rule in [sgd(), adamw()] {
        let parameters = parameters();
        let mut optimizer = Optimizer::new(&spec(rule.clone(), None), &parameters).expect("an optimizer");
        let mut expected = values(&parameters);
        let mut head = reference::Optimizer::<f64>::new(&rule, &[12, 5]);
        for step in 0..5 {
            let lr = 0.1 / (step + 1) as f64;
            optimizer.step(&parameters, &gradients(step), lr).expect("a step");
            let given: Vec<Vec<f64>> = gradients(step).tensors().iter().flatten().map(flat).collect();
            let given: Vec<&[f64]> = given.iter().map(Vec::as_slice).collect();
            let mut slices: Vec<&mut [f64]> = expected.iter_mut().map(Vec::as_mut_slice).collect();
            head.step(lr, &mut slices, &given);
        }
        for (got, want) in values(&parameters).concat().into_iter().zip(expected.concat()) {
            assert!((got - want).abs() < 1e-12, "{rule:?}: {got} for {want}");
        }
    }
}

#[test]
fn a_large_gradient_moves_no_parameter_far_once_clipped() {
    let single = |tensor: &Tensor| tensor.to_dtype(DType::F32).expect("f32");
    let parameters = vec![("weight".to_owned(), Var::from_tensor(&single(&noise((3, 4), 1))).expect("a variable"))];
    let before = flat(&parameters[0].1);
    let mut optimizer = Optimizer::new(&spec(adamw(), Some(1.0)), &parameters).expect("an optimizer");
    let huge = single(&(noise((3, 4), 5) * 1e25).expect("scaled"));
    optimizer.step(&parameters, &Gradients::new(vec![huge]), 0.1).expect("a step");
    for (after, before) in flat(&parameters[0].1).into_iter().zip(before) {
        assert!((after - before).abs() < 0.11, "{before} became {after}");
    }
}

#[test]
fn clipping_shortens_the_whole_gradient_and_keeps_its_direction() {
    let rule = OptimizerRule::Sgd { momentum: 0.0, weight_decay: 0.0 };
    let (clipped, free) = (parameters(), parameters());
    let before = values(&free).concat();
    let norm = Optimizer::new(&spec(rule.clone(), Some(0.5)), &clipped)
        .and_then(|mut o| o.step(&clipped, &gradients(0), 1.0))
        .expect("a step");
    Optimizer::new(&spec(rule, Some(1e6)), &free).and_then(|mut o| o.step(&free, &gradients(0), 1.0)).expect("a step");
    let moved = |after: &[(String, Var)]| -> Vec<f64> {
        values(after).concat().iter().zip(&before).map(|(a, b)| a - b).collect()
    };
    let (short, long) = (moved(&clipped), moved(&free));
    let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    assert!((length(&long) - norm).abs() < 1e-12 && (length(&short) - 0.5).abs() < 1e-12);
    for (s, l) in short.iter().zip(&long) {
        assert!((s * norm - l * 0.5).abs() < 1e-12);
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let parameters = parameters();
    let mut optimizer = Optimizer::new(&spec(adamw(), None), &parameters).expect("an optimizer");
    let before = values(&parameters);
    let bad = Tensor::new(&[[1.0, f64::NAN, 0.0, 0.0, 0.0]], &Device::Cpu).expect("a tensor");
    let error =
        optimizer.step(&parameters, &Gradients::new(vec![noise((3, 4), 1), bad]), 0.1).expect_err("there is a NaN");
    assert_eq!(
        error.to_string(),
        "the gradient of parameter `bias` is not finite; a smaller learning rate or clipping may help"
    );
    assert_eq!((values(&parameters), optimizer.steps()), (before, 0));
}

#[test]
fn a_restored_optimizer_continues_with_the_same_bits() {
    for rule in [sgd(), adamw()] {
        let go = |optimizer: &mut Optimizer, parameters: &[(String, Var)], steps: std::ops::Range<u64>| {
            for step in steps {
                optimizer.step(parameters, &gradients(step), 0.05).expect("a step");
            }
        };
        let whole = parameters();
        let mut optimizer = Optimizer::new(&spec(rule.clone(), None), &whole).expect("an optimizer");
        go(&mut optimizer, &whole, 0..3);
        let saved: BTreeMap<_, _> = optimizer.state().expect("state").into_iter().collect();
        let (at, copies) = (optimizer.steps(), whole.iter().map(|(n, v)| (n.clone(), v.copy().expect("a copy"))));
        let half: Vec<_> = copies.map(|(n, t)| (n, Var::from_tensor(&t.detach()).expect("a variable"))).collect();
        go(&mut optimizer, &whole, 3..6);
        let mut second = Optimizer::new(&spec(rule, None), &half).expect("an optimizer");
        second.restore(&saved, at).expect("restored");
        go(&mut second, &half, 3..6);
        assert_eq!((values(&half), second.steps()), (values(&whole), optimizer.steps()));
    }
}

#[test]
fn a_saved_state_of_another_kind_is_refused() {
    let parameters = parameters();
    let optimizer = Optimizer::new(&spec(sgd(), None), &parameters).expect("an optimizer");
    let saved: BTreeMap<_, _> = optimizer.state().expect("state").into_iter().collect();
    let mut other = Optimizer::new(&spec(adamw(), None), &parameters).expect("an optimizer");
    assert_eq!(
        other.restore(&saved, 1).expect_err("there are no means").to_string(),
        "saved tensor `mean.weight`: it is missing; the checkpoint belongs to another encoder or optimizer"
    );
    let single = Tensor::zeros((3, 4), DType::F32, &Device::Cpu).expect("a tensor");
    let wrong: BTreeMap<_, _> = saved.into_keys().map(|name| (name, single.clone())).collect();
    let mut same = Optimizer::new(&spec(sgd(), None), &parameters).expect("an optimizer");
    let message = same.restore(&wrong, 1).expect_err("f32 is not f64").to_string();
    assert!(message.starts_with("saved tensor `momentum.weight`: it is F32 [3, 4], not F64 [3, 4]"), "{message}");
}

#[test]
fn what_has_no_rate_stays_and_each_rate_is_applied() {
    for rule in [sgd(), adamw()] {
        let transfer = |freeze: &[&str], adapter_lr| TransferSpec {
            freeze: freeze.iter().map(|pattern| (*pattern).to_owned()).collect(),
            adapter_lr,
            ..TransferSpec::default()
        };
        let named = |transfer: &TransferSpec| {
            let mut parameters = parameters();
            parameters[1].0 = "adapter.bias".to_owned();
            let rates = Rates::new(transfer, &parameters).expect("names that there are");
            let optimizer =
                Optimizer::with_rates(&spec(rule.clone(), Some(0.1)), &parameters, &rates).expect("an optimizer");
            (parameters, optimizer)
        };
        let (frozen, mut half) = named(&transfer(&["weight"], 3.0));
        let before = values(&frozen);
        let norm = half.step(&frozen, &gradients(0), 0.05).expect("a step");
        let bias = flat(gradients(0).tensors()[1].as_ref().expect("a gradient"));
        assert_eq!(norm, bias.iter().map(|g| g * g).sum::<f64>().sqrt(), "of what is trained");
        assert_eq!(values(&frozen)[0], before[0], "frozen to the last bit");
        let names: Vec<String> = half.state().expect("state").into_iter().map(|(name, _)| name).collect();
        assert!(names.iter().all(|name| name.ends_with(".adapter.bias")), "{names:?}");

        // Training a parameter alone at three times the rate is the same as training it with a factor of three beside a
        // frozen one.
        let (alone, mut fast) = named(&transfer(&["weight"], 1.0));
        fast.step(&alone, &gradients(0), 0.15).expect("a step");
        for (a, b) in values(&alone)[1].iter().zip(&values(&frozen)[1]) {
            assert!((a - b).abs() < 1e-15, "{a} {b}");
        }
    }
}

#[test]
fn a_frozen_parameter_may_have_any_gradient() {
    let parameters = parameters();
    let transfer = TransferSpec { freeze: vec!["weight".to_owned()], ..TransferSpec::default() };
    let rates = Rates::new(&transfer, &parameters).expect("names that there are");
    let mut optimizer = Optimizer::with_rates(&spec(sgd(), None), &parameters, &rates).expect("an optimizer");
    let bad = (noise((3, 4), 1) * f64::INFINITY).expect("a product");
    optimizer.step(&parameters, &Gradients::new(vec![bad, noise((1, 5), 2)]), 0.1).expect("a step");
}
