//! The elements of tensors, on the wire and during transfer: little-endian f32.

use std::collections::VecDeque;

/// Bytes of an element.
pub(crate) const F32_BYTES: usize = size_of::<f32>();

/// Elements that arrived in chunks, for the tensors of one message in the order of their fields. The conversions of
/// messages take them from here if the `data` of a tensor is empty.
#[derive(Debug, Default)]
pub struct Followed(VecDeque<Elements>);

/// The elements of one tensor, as they arrive.
#[derive(Debug)]
pub(crate) struct Elements {
    pub(crate) numbers: Vec<f32>,
    needed: usize,
    /// The position of the first element that is NaN or infinite.
    pub(crate) not_finite: Option<usize>,
}

impl Followed {
    /// No elements, for a message without chunks.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// The elements of a message's tensors, in the order of the fields.
    pub(crate) fn new(tensors: VecDeque<Elements>) -> Self {
        Self(tensors)
    }

    pub(crate) fn next_tensor(&mut self) -> Option<Elements> {
        self.0.pop_front()
    }
}

impl Elements {
    /// Allocates memory for this many bytes, if there is enough.
    pub(crate) fn allocate(bytes: usize) -> Option<Self> {
        let needed = bytes / F32_BYTES;
        let mut numbers = Vec::new();
        numbers.try_reserve_exact(needed).ok()?;
        Some(Self { numbers, needed, not_finite: None })
    }

    pub(crate) fn missing(&self) -> usize {
        (self.needed - self.numbers.len()) * F32_BYTES
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        let before = self.numbers.len();
        read_f32(data, &mut self.numbers);
        let finite = finite_prefix(&self.numbers[before..]);
        if before + finite < self.numbers.len() {
            self.not_finite.get_or_insert(before + finite);
        }
    }
}

/// Appends the little-endian numbers of `data`, whose length must be a multiple of 4.
pub(crate) fn read_f32(data: &[u8], numbers: &mut Vec<f32>) {
    let (elements, _) = data.as_chunks::<F32_BYTES>();
    numbers.extend(elements.iter().map(|bytes| f32::from_le_bytes(*bytes)));
}

/// How many of the first numbers are finite.
pub(crate) fn finite_prefix(numbers: &[f32]) -> usize {
    const BLOCK: usize = 256;
    // An inner loop without an early exit is vectorised.
    let finite = |block: &[f32]| block.iter().fold(true, |all, x| all & x.is_finite());
    let whole: usize = numbers.chunks(BLOCK).take_while(|block| finite(block)).map(<[f32]>::len).sum();
    whole + numbers[whole..].iter().take_while(|x| x.is_finite()).count()
}

/// `(10, 512)`; a hostile shape with many dimensions is truncated.
pub(crate) fn shape_text<D: std::fmt::Display>(shape: &[D]) -> String {
    const SHOWN: usize = 8;
    let mut dimensions: Vec<String> = shape.iter().take(SHOWN).map(ToString::to_string).collect();
    if shape.len() > SHOWN {
        dimensions.push(format!("… {} dimensions", shape.len()));
    }
    format!("({})", dimensions.join(", "))
}
