//! `bert`: BERT (Devlin et al. 2019) without its pooler. Names are Hugging Face's, with queries, keys and values in one
//! matrix.

use std::sync::Arc;

use antiphon_core::spec::{BertSize, Pooling, TransformerSize};
use antiphon_data::{BatchInput, InputShape};
use candle_core::{DType, Result, Var};

use super::adapter::Adapter;
use super::contract::{Encoder, Forward};
use super::error::EncoderError;
use super::text::packed;
use crate::nn::activation::Activation;
use crate::nn::attention::attention;
use crate::nn::embedding::embedding;
use crate::nn::gelu::gelu;
use crate::nn::layer::Mode;
use crate::nn::layer::{LayerNorm, Linear, Pass};
use crate::nn::parameters::Parameters;
use crate::nn::segment_mean::segment_mean;
use crate::nn::value::Value;

/// The standard deviation of initial weights.
const DEVIATION: f64 = 0.02;

/// Added to the variances of layer norms.
const EPSILON: f64 = 1e-12;

/// The number of token types. All tokens here have the first type.
const SENTENCES: usize = 2;

/// The dimensions of a BERT.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) size: TransformerSize,
    pub(super) pooling: Pooling,
    pub(super) dropout: f64,
}

/// `x = norm(x + dense(attention(x)))`, then `x = norm(x + dense(GELU(dense(x))))`, with a hidden width of four times.
struct Layer {
    qkv: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    norm: LayerNorm,
}

impl Layer {
    fn new(made: &mut Parameters<'_>, name: &str, width: usize) -> Result<Self> {
        let mut linear = |layer: &str, from, to| Linear::normal(made, &format!("{name}.{layer}"), from, to, DEVIATION);
        let qkv = linear("attention.self.qkv", width, 3 * width)?;
        let attention_output = linear("attention.output.dense", width, width)?;
        let intermediate = linear("intermediate.dense", width, 4 * width)?;
        let output = linear("output.dense", 4 * width, width)?;
        let mut norm = |layer: &str| LayerNorm::with_epsilon(made, &format!("{name}.{layer}"), width, EPSILON);
        let (attention_norm, norm) = (norm("attention.output.LayerNorm")?, norm("output.LayerNorm")?);
        Ok(Self { qkv, attention_output, attention_norm, intermediate, output, norm })
    }

    fn forward(&self, pass: &mut Pass<'_>, x: &Value, plan: &Plan, starts: &Arc<[usize]>) -> Result<Value> {
        let mixed = self.qkv.forward(pass, x, Activation::Identity)?;
        let mixed = attention(&mixed, plan.size.heads as usize, starts)?;
        let mixed = self.attention_output.forward(pass, &mixed, Activation::Identity)?;
        let sum = x.add(&pass.dropout(&mixed, plan.dropout)?)?;
        let x = self.attention_norm.forward(pass, &sum)?;
        let inner = gelu(&self.intermediate.forward(pass, &x, Activation::Identity)?)?;
        let fed = self.output.forward(pass, &inner, Activation::Identity)?;
        let sum = x.add(&pass.dropout(&fed, plan.dropout)?)?;
        self.norm.forward(pass, &sum)
    }
}

/// Embeddings, norm, layers, pooling, and an adapter if s is another width.
pub(super) struct Bert {
    shape: InputShape,
    plan: Plan,
    words: Var,
    position_table: Var,
    sentences: Var,
    norm: LayerNorm,
    layers: Vec<Layer>,
    adapter: Adapter,
    width: usize,
    activations: DType,
    parameters: Vec<(String, Var)>,
}

impl Bert {
    pub(super) fn new(
        mut made: Parameters<'_>,
        plan: Plan,
        shape: &InputShape,
        width: usize,
    ) -> std::result::Result<Self, EncoderError> {
        let &InputShape::Tokens { vocabulary, max_tokens, padding } = shape else {
            let instead = "`mlp`, `cnn`, `resnet18` or `vit`";
            return Err(EncoderError::WrongInput { kind: "bert", input: shape.clone(), instead });
        };
        let positions = BertSize::POSITIONS as usize;
        if max_tokens > positions {
            return Err(EncoderError::TextsTooLong { tokens: max_tokens, positions });
        }
        let own = plan.size.width as usize;
        let mut table = |name: &str, rows| made.normal(format!("embeddings.{name}.weight"), (rows, own), DEVIATION);
        // A padding id after all other ids is never read, and pretrained tables have no row for it.
        let words = table("word_embeddings", vocabulary - usize::from(padding as usize + 1 == vocabulary))?;
        let position_table = table("position_embeddings", positions)?;
        let sentences = table("token_type_embeddings", SENTENCES)?;
        let norm = LayerNorm::with_epsilon(&mut made, "embeddings.LayerNorm", own, EPSILON)?;
        let layer = |i| Layer::new(&mut made, &format!("encoder.layer.{i}"), own);
        let layers = (0..plan.size.layers).map(layer).collect::<Result<_>>()?;
        let adapter = Adapter::new(&mut made, own, width)?;
        let (shape, activations, parameters) = (shape.clone(), made.activations(), made.into_made());
        Ok(Self {
            shape,
            plan,
            words,
            position_table,
            sentences,
            norm,
            layers,
            adapter,
            width,
            activations,
            parameters,
        })
    }
}

impl Encoder for Bert {
    fn width(&self) -> usize {
        self.width
    }

    fn parameters(&self) -> &[(String, Var)] {
        &self.parameters
    }

    fn forward(&self, input: &BatchInput, mode: &Mode) -> std::result::Result<Forward, EncoderError> {
        let sequences = packed(input, &self.shape)?;
        let mut pass = Pass::new(mode, self.activations);
        let tables = [&self.words, &self.position_table, &self.sentences].map(|variable| pass.parameter(variable));
        let mut x = pass.enter(&embedding(&tables[0], &tables[1], Some(&tables[2]), &sequences)?)?;
        x = self.norm.forward(&mut pass, &x)?;
        x = pass.dropout(&x, self.plan.dropout)?;
        for layer in &self.layers {
            x = layer.forward(&mut pass, &x, &self.plan, &sequences.starts)?;
        }
        let pooled = sequences.starts.windows(2).map(|sequence| match self.plan.pooling {
            Pooling::Cls => sequence[0]..sequence[0] + 1,
            Pooling::Mean => sequence[0]..sequence[1],
        });
        x = segment_mean(&x, pooled.collect())?;
        let features = self.adapter.forward(&mut pass, &x)?;
        Forward::new(&features, pass)
    }
}
