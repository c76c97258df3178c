//! `text`: embedding, transformer blocks, mean over the tokens.

use std::sync::Arc;

use antiphon_data::{BatchInput, InputShape};
use candle_core::{DType, Var};

use super::adapter::Adapter;
use super::contract::{Encoder, Forward};
use super::error::EncoderError;
use super::input::wrong_batch;
use crate::nn::activation::Activation;
use crate::nn::attention::attention;
use crate::nn::embedding::{Packed, embedding};
use crate::nn::layer::Mode;
use crate::nn::layer::{LayerNorm, Linear, Pass};
use crate::nn::parameters::Parameters;
use crate::nn::segment_mean::segment_mean;
use crate::nn::value::Value;

/// The dimensions of a text encoder.
pub(super) struct Plan {
    pub(super) width: u32,
    pub(super) layers: u32,
    pub(super) heads: u32,
    pub(super) dropout: f64,
}

/// `x += attention(norm(x))`, then `x += linear(ReLU(linear(norm(x))))`, with a hidden width of four times.
struct Block {
    attention_norm: LayerNorm,
    projection_in: Linear,
    projection_out: Linear,
    feed_norm: LayerNorm,
    feed_in: Linear,
    feed_out: Linear,
}

impl Block {
    fn new(made: &mut Parameters<'_>, name: &str, width: usize, layers: usize) -> candle_core::Result<Self> {
        // The more blocks add to the residual stream, the smaller their initial contributions (Radford et al. 2019).
        let residual = 1.0 / (2.0 * layers as f64).sqrt();
        Ok(Self {
            attention_norm: LayerNorm::new(made, &format!("{name}.norm1"), width)?,
            projection_in: Linear::new(made, &format!("{name}.attention.in_proj"), width, 3 * width, 1.0)?,
            projection_out: Linear::new(made, &format!("{name}.attention.out_proj"), width, width, residual)?,
            feed_norm: LayerNorm::new(made, &format!("{name}.norm2"), width)?,
            feed_in: Linear::new(made, &format!("{name}.linear1"), width, 4 * width, std::f64::consts::SQRT_2)?,
            feed_out: Linear::new(made, &format!("{name}.linear2"), 4 * width, width, residual)?,
        })
    }

    fn forward(
        &self,
        pass: &mut Pass<'_>,
        x: &Value,
        heads: usize,
        dropout: f64,
        starts: &Arc<[usize]>,
    ) -> candle_core::Result<Value> {
        let normed = self.attention_norm.forward(pass, x)?;
        let projected = self.projection_in.forward(pass, &normed, Activation::Identity)?;
        let mixed = attention(&projected, heads, starts)?;
        let mixed = self.projection_out.forward(pass, &mixed, Activation::Identity)?;
        let x = x.add(&pass.dropout(&mixed, dropout)?)?;
        let normed = self.feed_norm.forward(pass, &x)?;
        let inner = self.feed_in.forward(pass, &normed, Activation::Relu)?;
        let fed = self.feed_out.forward(pass, &inner, Activation::Identity)?;
        x.add(&pass.dropout(&fed, dropout)?)
    }
}

/// Embedding, blocks, mean, adapter.
pub(super) struct Text {
    shape: InputShape,
    table: Var,
    position_table: Var,
    blocks: Vec<Block>,
    norm: LayerNorm,
    heads: usize,
    dropout: f64,
    adapter: Adapter,
    width: usize,
    activations: DType,
    parameters: Vec<(String, Var)>,
}

impl Text {
    pub(super) fn new(
        mut made: Parameters<'_>,
        plan: &Plan,
        shape: &InputShape,
        width: usize,
    ) -> Result<Self, EncoderError> {
        let &InputShape::Tokens { vocabulary, max_tokens, .. } = shape else {
            return Err(EncoderError::WrongInput { kind: "text", input: shape.clone(), instead: "`mlp` or `cnn`" });
        };
        let Plan { width: own, layers, heads, dropout } = *plan;
        if heads == 0 || own == 0 || own % heads != 0 {
            return Err(EncoderError::HeadsDoNotDivide { width: own, heads });
        }
        let (own, layers) = (own as usize, layers as usize);
        let deviation = 0.02;
        let table = made.normal("embedding.weight".to_owned(), (vocabulary, own), deviation)?;
        let position_table = made.normal("position.weight".to_owned(), (max_tokens, own), deviation)?;
        let block = |i| Block::new(&mut made, &format!("blocks.{i}"), own, layers);
        let blocks = (0..layers).map(block).collect::<candle_core::Result<_>>()?;
        let norm = LayerNorm::new(&mut made, "norm", own)?;
        let adapter = Adapter::new(&mut made, own, width)?;
        let (shape, heads) = (shape.clone(), heads as usize);
        let (activations, parameters) = (made.activations(), made.into_made());
        Ok(Self { shape, table, position_table, blocks, norm, heads, dropout, adapter, width, activations, parameters })
    }
}

/// The sequences of a batch, if an encoder for this shape can read them.
pub(super) fn packed(input: &BatchInput, shape: &InputShape) -> Result<Arc<Packed>, EncoderError> {
    let (ids, lengths, longest) = match input {
        BatchInput::Tokens { ids, lengths, longest } => (ids, lengths, *longest),
        BatchInput::Dense { shape: got, .. } => return Err(wrong_batch(shape, format!("shape {got:?}"))),
    };
    let fits = |length: &u32| (1..=longest).contains(&(*length as usize));
    if longest > shape.size() || ids.len() != lengths.len() * longest || !lengths.iter().all(fits) {
        let got = format!("{} ids for {} sequences of up to {longest} tokens", ids.len(), lengths.len());
        return Err(wrong_batch(shape, got));
    }
    let InputShape::Tokens { vocabulary, .. } = *shape else { return Err(wrong_batch(shape, "sequences".to_owned())) };
    let sequences = Packed::new(ids, lengths, longest);
    match sequences.tokens.iter().find(|token| **token as usize >= vocabulary) {
        Some(token) => Err(wrong_batch(shape, format!("sequences with token {token}"))),
        None => Ok(Arc::new(sequences)),
    }
}

impl Encoder for Text {
    fn width(&self) -> usize {
        self.width
    }

    fn parameters(&self) -> &[(String, Var)] {
        &self.parameters
    }

    fn forward(&self, input: &BatchInput, mode: &Mode) -> Result<Forward, EncoderError> {
        let sequences = packed(input, &self.shape)?;
        let mut pass = Pass::new(mode, self.activations);
        let tables = [&self.table, &self.position_table].map(|variable| pass.parameter(variable));
        let mut x = pass.enter(&embedding(&tables[0], &tables[1], None, &sequences)?)?;
        for block in &self.blocks {
            x = block.forward(&mut pass, &x, self.heads, self.dropout, &sequences.starts)?;
        }
        let all = sequences.starts.windows(2).map(|sequence| sequence[0]..sequence[1]);
        x = segment_mean(&self.norm.forward(&mut pass, &x)?, all.collect())?;
        let features = self.adapter.forward(&mut pass, &x)?;
        Forward::new(&features, pass)
    }
}
