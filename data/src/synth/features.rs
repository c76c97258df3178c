//! Feature vectors: two noisy views of ten clusters. Each view separates the classes that the other confuses.
//!
//! The centre of a class in a view is the sum of a long vector, drawn for its group of two classes, and a short one,
//! drawn for the class itself. View `a` groups (0,1) (2,3) (4,5) ..., view `b` groups (9,0) (1,2) (3,4) ...: two
//! classes that share a group in one view never share one in the other.

use super::classes::CLASSES;
use super::exact::Dice;

/// Numbers per vector.
pub(super) const WIDTH: u32 = 24;

/// Lengths of the group's vector and of the class's vector in a centre, by view. The noise has a deviation of 1. `a` is
/// learnt faster than `b`.
const LENGTHS: [(f64, f64); 2] = [(5.0, 1.3), (3.6, 1.3)];

/// A vector of class `label` in a view, 0 or 1. `stream` makes the random streams of the view's centres, by name and
/// number.
pub(super) fn vector(label: u32, view: usize, stream: &dyn Fn(&str, u32) -> Dice, dice: &mut Dice) -> Vec<f32> {
    let group = (label + view as u32) % CLASSES / 2;
    let (far, near) = LENGTHS[view];
    let of_group = direction(stream("group", group));
    let of_class = direction(stream("class", label));
    let centre = of_group.iter().zip(&of_class).map(|(g, c)| far * g + near * c);
    centre.map(|mean| (mean + dice.bell()) as f32).collect()
}

/// A random vector of length 1.
fn direction(mut dice: Dice) -> Vec<f64> {
    let draws: Vec<f64> = (0..WIDTH).map(|_| dice.bell()).collect();
    let length = draws.iter().map(|x| x * x).sum::<f64>().sqrt();
    draws.into_iter().map(|x| x / length).collect()
}
