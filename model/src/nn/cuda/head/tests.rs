//! Compares the head's step on a GPU with the one in main memory. Does nothing without a GPU.

use candle_core::Device;

use super::*;
use crate::nn::check::{devices, flat, noise};

fn cards() -> impl Iterator<Item = Device> {
    devices().into_iter().filter(Device::is_cuda)
}

fn numbers(rows: usize, columns: usize, seed: u64) -> Numbers<f32> {
    let values = flat(&noise((rows, columns), seed)).into_iter().map(|value| value as f32).collect();
    Numbers::from_vec(rows, columns, values).expect("as many")
}

fn head(classes: usize, width: usize) -> Head<f32> {
    Head::new(numbers(classes, width, 1), numbers(1, classes, 2).into_vec()).expect("a head")
}

fn on(card: &Device, features: &Numbers<f32>) -> Tensor {
    Tensor::from_slice(features.as_slice(), (features.rows(), features.cols()), card).expect("brought up")
}

/// All numbers of a contribution, then dH.
fn tensors(contribution: Contribution<f32>, feature_gradient: Vec<f32>) -> Vec<Vec<f32>> {
    let Contribution { gradient, bias_gradient, mean_features, loss, correct, samples } = contribution;
    let mut all =
        vec![bias_gradient, mean_features, vec![loss as f32, correct as f32, samples as f32], feature_gradient];
    match gradient {
        HeadGradient::Dense(gradient) => all.push(gradient.into_vec()),
        HeadGradient::Factors { errors, features } => all.extend([errors.into_vec(), features.into_vec()]),
    }
    all
}

/// # Panics
/// If they differ by more than a fraction of the largest number of each part.
fn assert_near(got: &[Vec<f32>], expected: &[Vec<f32>], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (n, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert_eq!(got.len(), expected.len(), "{what}, part {n}");
        let largest = expected.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() <= 1e-5 * largest, "{what}, part {n}: {got} for {expected} of {largest}");
        }
    }
}

#[test]
fn head_steps_match_main_memory_and_are_repeatable() {
    for card in cards() {
        // (B, C, s): Some send G, others D and H. One has more classes than a block has threads.
        for (samples, classes, width) in [(1, 1, 1), (7, 3, 5), (64, 10, 300), (40, 700, 90), (2, 30, 40), (300, 4, 6)]
        {
            let what = format!("{samples} x {classes} x {width}");
            let (head, features) = (head(classes, width), numbers(samples, width, 3));
            let labels: Vec<u32> = (0..samples).map(|row| (row * 7 % classes) as u32).collect();
            let (contribution, errors) = head.contribution(features.clone(), &labels).expect("a good batch");
            let expected = tensors(contribution, head.feature_gradient(&errors).into_vec());
            let [got, again] = [(); 2].map(|()| {
                let (got, errors) = contribution_of(&head, &on(&card, &features), &labels);
                tensors(got, errors.feature_gradient().and_then(|g| g.flatten_all()?.to_vec1()).expect("dH"))
            });
            assert_near(&got, &expected, &what);
            assert_eq!(got, again, "{what}: other bits the second time");
        }
    }
}

fn contribution_of(head: &Head<f32>, features: &Tensor, labels: &[u32]) -> (Contribution<f32>, Errors) {
    contribution(head, features, labels).expect("a good batch")
}

#[test]
fn of_classes_that_are_equally_likely_the_first_is_the_answer() {
    let head = Head::new(Numbers::zeros(5, 3), vec![0.0, 1.0, -1.0, 1.0, 0.0]).expect("a head");
    for card in cards() {
        let features = numbers(5, 3, 4);
        let (contribution, _) = contribution_of(&head, &on(&card, &features), &[1, 3, 0, 1, 3]);
        assert_eq!(contribution.correct, 2);
    }
}

#[test]
fn a_bad_batch_is_refused_as_in_main_memory() {
    let head = head(3, 2);
    let good = || numbers(2, 2, 5);
    let with = |value: f32| {
        let mut features = good();
        features.row_mut(1)[0] = value;
        features
    };
    let cases = [
        (numbers(2, 4, 5), vec![0, 1]),
        (good(), vec![0]),
        (good(), vec![0, 3]),
        (with(f32::NAN), vec![0, 1]),
        (with(f32::NEG_INFINITY), vec![0, 1]),
        (Numbers::from_vec(2, 2, vec![0.0, 0.0, f32::MAX, f32::MAX]).expect("as many"), vec![0, 1]),
    ];
    let large = Head::new(numbers(3, 2, 1).map(|value| 4.0 * value.signum()), vec![0.0; 3]).expect("a head");
    for (card, (features, labels)) in cards().flat_map(|card| cases.clone().map(|case| (card.clone(), case))) {
        let head = if features.as_slice().contains(&f32::MAX) { &large } else { &head };
        let expected = head.contribution(features.clone(), &labels).expect_err("a bad batch").to_string();
        let error = contribution(head, &on(&card, &features), &labels).expect_err("a bad batch");
        assert_eq!(error.to_string(), expected);
    }
    for card in cards() {
        let doubles = noise((2, 2), 5).to_device(&card).expect("brought up");
        assert!(contribution(&head, &doubles, &[0, 1]).is_err(), "features are in f32");
    }
}
