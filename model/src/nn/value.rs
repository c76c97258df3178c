//! Tensors that flow through operators, and the tape for the backward pass.
//!
//! Every operator computes its result and, if a gradient is wanted, records a step on the tape: a function from the
//! gradient of its result to those of its inputs. [`backward`] removes the steps in reverse order. So what a step holds
//! (inputs, results) is freed as soon as it is used, and gradients are added only where two paths meet.
//!
//! candle's own tape keeps everything until the end and adds every gradient to a tensor of zeros. Some of its operators
//! record no step at all. So it is not used here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{Result, Tensor};

use super::dispatch::on_cuda;

/// A tensor, and its node on the tape if its gradient is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    tensor: Tensor,
    node: Option<Node>,
}

/// A value's number on a tape.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    tape: Arc<Tape>,
    number: usize,
}

/// The recorded steps, in order.
#[derive(Debug, Default)]
pub(crate) struct Tape(Mutex<Recording>);

#[derive(Debug, Default)]
struct Recording {
    values: usize,
    steps: Vec<Step>,
}

type Backward = Box<dyn FnOnce(&Tensor) -> Result<Vec<Option<Tensor>>> + Send>;

struct Step {
    inputs: Vec<Option<usize>>,
    output: usize,
    backward: Backward,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} → {}", self.inputs, self.output)
    }
}

impl Tape {
    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A value whose gradient is wanted, such as a parameter.
    pub(crate) fn variable(self: &Arc<Self>, tensor: Tensor) -> Value {
        let mut recording = self.recording();
        recording.values += 1;
        Value { tensor, node: Some(Node { tape: Arc::clone(self), number: recording.values - 1 }) }
    }
}

impl Value {
    /// A value whose gradient is not wanted, such as data.
    pub(crate) fn constant(tensor: Tensor) -> Self {
        Self { tensor, node: None }
    }

    pub(crate) fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Whether its gradient is wanted.
    pub(crate) fn wanted(&self) -> bool {
        self.node.is_some()
    }

    pub(crate) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// The result of an operator on `inputs`. `backward` receives the contiguous gradient of `output`. It returns the
    /// gradients of the inputs that are [wanted](Self::wanted), and None for the others, which it must not compute.
    pub(crate) fn of<const N: usize>(
        output: Tensor,
        inputs: [&Self; N],
        backward: impl FnOnce(&Tensor) -> Result<[Option<Tensor>; N]> + Send + 'static,
    ) -> Self {
        let Some(tape) = inputs.iter().find_map(|input| input.node.as_ref()).map(|node| Arc::clone(&node.tape)) else {
            return Self::constant(output);
        };
        let value = tape.variable(output);
        let inputs = inputs.iter().map(|input| input.node.as_ref().map(|node| node.number)).collect();
        let output = value.node.as_ref().map_or(0, |node| node.number);
        let backward = Box::new(|gradient: &Tensor| backward(gradient).map(Vec::from));
        tape.recording().steps.push(Step { inputs, output, backward });
        value
    }

    /// The same numbers in another shape.
    ///
    /// # Errors
    /// If the number of elements differs.
    pub(crate) fn reshape(&self, shape: impl candle_core::shape::ShapeWithOneHole) -> Result<Self> {
        let before = self.tensor.shape().clone();
        let output = self.tensor.reshape(shape)?;
        Ok(Self::of(output, [self], move |gradient| Ok([Some(gradient.reshape(before)?)])))
    }

    /// The sum of two values of one shape.
    ///
    /// # Errors
    /// If their shapes differ.
    pub(crate) fn add(&self, other: &Self) -> Result<Self> {
        let output = sum(&self.tensor, &other.tensor)?;
        let wanted = [self, other].map(Self::wanted);
        Ok(Self::of(output, [self, other], move |gradient| Ok(wanted.map(|wanted| wanted.then(|| gradient.clone())))))
    }
}

fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    on_cuda!(a, elementwise::add(a, b));
    a + b
}

/// The gradients of `variables` from the gradient of a result, in their order. None if no path leads to a variable.
/// This consumes the tape.
///
/// # Errors
/// If an operator fails.
pub(crate) fn backward(result: &Node, gradient: Tensor, variables: &[Option<usize>]) -> Result<Vec<Option<Tensor>>> {
    let Recording { values, steps } = std::mem::take(&mut *result.tape.recording());
    let mut gradients: Vec<Option<Tensor>> = vec![None; values.max(result.number + 1)];
    gradients[result.number] = Some(gradient);
    for Step { inputs, output, backward } in steps.into_iter().rev() {
        // A variable is no step's output. No step before the one that computed a value needs the value.
        let Some(gradient) = gradients[output].take() else { continue };
        let partials = backward(&gradient.contiguous()?)?;
        drop(gradient);
        for (input, partial) in inputs.into_iter().zip(partials) {
            #[cfg(test)]
            assert!(input.is_some() || partial.is_none(), "a gradient that is not wanted was computed");
            if let (Some(input), Some(partial)) = (input, partial) {
                gradients[input] = Some(match gradients[input].take() {
                    Some(already) => sum(&already, &partial)?,
                    None => partial,
                });
            }
        }
    }
    Ok(variables.iter().map(|number| number.and_then(|number| gradients.get_mut(number)?.take())).collect())
}

impl Node {
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// The number of steps on the tape so far.
    #[cfg(test)]
    pub(crate) fn steps(&self) -> usize {
        self.tape.recording().steps.len()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn numbers(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).expect("a vector")
    }

    fn square(x: &Value) -> Value {
        let input = x.tensor().clone();
        let output = input.sqr().expect("squared");
        Value::of(output, [x], move |gradient| Ok([Some(((gradient * input)? * 2.0)?)]))
    }

    #[test]
    fn gradients_are_added_where_paths_meet() {
        let tape = Arc::new(Tape::default());
        let (x, unused) = (tape.variable(numbers(&[3.0, -1.0])), tape.variable(numbers(&[1.0])));
        let y = square(&x).add(&square(&x)).and_then(|y| y.add(&x)).expect("a sum");
        let node = y.node().expect("a node");
        let variables = [&x, &unused].map(|v| v.node().map(Node::number));
        let gradients = backward(node, numbers(&[1.0, 10.0]), &variables).expect("gradients");
        assert_eq!(gradients[0].as_ref().expect("x's").to_vec1::<f32>().expect("numbers"), [13.0, -30.0]);
        assert!(gradients[1].is_none());
        assert!(backward(node, numbers(&[1.0, 10.0]), &variables).expect("no steps left")[0].is_none());
    }

    #[test]
    fn nothing_is_recorded_of_constants() {
        let x = Value::constant(numbers(&[2.0]));
        assert!(!square(&x).add(&x).expect("a sum").wanted());
    }

    #[test]
    fn what_a_step_holds_is_let_go_of_once_it_is_used() {
        let tape = Arc::new(Tape::default());
        let held = Arc::new(());
        let x = tape.variable(numbers(&[1.0]));
        let [early, late] = [Arc::clone(&held), Arc::clone(&held)];
        let seen = Arc::clone(&held);
        let y = Value::of(numbers(&[1.0]), [&x], move |g| {
            // References remain in `held`, `early` and this closure. The later step was freed.
            assert_eq!(Arc::strong_count(&seen), 3);
            drop(early);
            Ok([Some(g.clone())])
        });
        let z = Value::of(numbers(&[1.0]), [&y], move |g| {
            drop(late);
            Ok([Some(g.clone())])
        });
        let variables = [x.node().map(Node::number)];
        backward(z.node().expect("a node"), numbers(&[1.0]), &variables).expect("gradients");
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
