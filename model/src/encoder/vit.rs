//! `vit`: a vision transformer (Dosovitskiy et al. 2021) over patches of an image or a spectrogram, with timm's names.

use std::sync::Arc;

use antiphon_core::spec::{Pooling, TransformerSize};
use antiphon_data::{BatchInput, Images, InputShape};
use candle_core::{DType, Result, Var};

use super::adapter::Adapter;
use super::contract::{Encoder, Forward};
use super::error::EncoderError;
use super::input::{frame_mean, grid};
use crate::nn::activation::Activation;
use crate::nn::attention::attention;
use crate::nn::convolution::convolution;
use crate::nn::gelu::gelu;
use crate::nn::layer::Mode;
use crate::nn::layer::{LayerNorm, Linear, Pass};
use crate::nn::parameters::Parameters;
use crate::nn::segment_mean::segment_mean;
use crate::nn::sequence::with_class_token;
use crate::nn::value::Value;

/// The standard deviation of initial weights.
const DEVIATION: f64 = 0.02;

/// Added to the variances of layer norms.
const EPSILON: f64 = 1e-6;

/// The dimensions of a vision transformer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) size: TransformerSize,
    pub(super) patch: usize,
    pub(super) pooling: Pooling,
    pub(super) dropout: f64,
}

/// `x += proj(attention(norm1(x)))`, then `x += fc2(GELU(fc1(norm2(x))))`, with a hidden width of four times.
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    fn new(made: &mut Parameters<'_>, name: &str, width: usize) -> Result<Self> {
        let mut linear = |layer: &str, from, to| Linear::normal(made, &format!("{name}.{layer}"), from, to, DEVIATION);
        let qkv = linear("attn.qkv", width, 3 * width)?;
        let proj = linear("attn.proj", width, width)?;
        let fc1 = linear("mlp.fc1", width, 4 * width)?;
        let fc2 = linear("mlp.fc2", 4 * width, width)?;
        let mut norm = |layer: &str| LayerNorm::with_epsilon(made, &format!("{name}.{layer}"), width, EPSILON);
        Ok(Self { norm1: norm("norm1")?, qkv, proj, norm2: norm("norm2")?, fc1, fc2 })
    }

    fn forward(
        &self,
        pass: &mut Pass<'_>,
        x: &Value,
        heads: usize,
        dropout: f64,
        starts: &Arc<[usize]>,
    ) -> Result<Value> {
        let normed = self.norm1.forward(pass, x)?;
        let mixed = attention(&self.qkv.forward(pass, &normed, Activation::Identity)?, heads, starts)?;
        let mixed = self.proj.forward(pass, &mixed, Activation::Identity)?;
        let x = x.add(&pass.dropout(&mixed, dropout)?)?;
        let normed = self.norm2.forward(pass, &x)?;
        let inner = gelu(&self.fc1.forward(pass, &normed, Activation::Identity)?)?;
        let fed = self.fc2.forward(pass, &inner, Activation::Identity)?;
        x.add(&pass.dropout(&fed, dropout)?)
    }
}

/// Patches, a class token, positions, blocks, norm, pooling, and an adapter if s is another width.
pub(super) struct Vit {
    shape: InputShape,
    plan: Plan,
    patch_weight: Var,
    patch_bias: Var,
    class_token: Var,
    position_table: Var,
    blocks: Vec<Block>,
    norm: LayerNorm,
    adapter: Adapter,
    width: usize,
    activations: DType,
    parameters: Vec<(String, Var)>,
}

impl Vit {
    pub(super) fn new(
        mut made: Parameters<'_>,
        plan: Plan,
        shape: &InputShape,
        width: usize,
    ) -> std::result::Result<Self, EncoderError> {
        let Some(Images { channels, height, width: wide, .. }) = shape.images() else {
            let instead = if matches!(shape, InputShape::Tokens { .. }) { "`text` or `bert`" } else { "`mlp`" };
            return Err(EncoderError::WrongInput { kind: "vit", input: shape.clone(), instead });
        };
        let Plan { size, patch, .. } = plan;
        if height < patch || wide < patch {
            return Err(EncoderError::PatchTooLarge { patch, height, width: wide });
        }
        let own = size.width as usize;
        let patches = (height / patch) * (wide / patch);
        let inputs = channels * patch * patch;
        let class_token = made.normal("cls_token".to_owned(), (1, 1, own), DEVIATION)?;
        let position_table = made.normal("pos_embed".to_owned(), (1, 1 + patches, own), DEVIATION)?;
        let kernel = (own, channels, patch, patch);
        let patch_weight = made.normal("patch_embed.proj.weight".to_owned(), kernel, 1.0 / (inputs as f64).sqrt())?;
        let patch_bias = made.constant("patch_embed.proj.bias".to_owned(), own, 0.0)?;
        let block = |i| Block::new(&mut made, &format!("blocks.{i}"), own);
        let blocks = (0..size.layers).map(block).collect::<Result<_>>()?;
        let norm = LayerNorm::with_epsilon(&mut made, "norm", own, EPSILON)?;
        let adapter = Adapter::new(&mut made, own, width)?;
        let (shape, activations, parameters) = (shape.clone(), made.activations(), made.into_made());
        Ok(Self {
            shape,
            plan,
            patch_weight,
            patch_bias,
            class_token,
            position_table,
            blocks,
            norm,
            adapter,
            width,
            activations,
            parameters,
        })
    }
}

impl Encoder for Vit {
    fn width(&self) -> usize {
        self.width
    }

    fn parameters(&self) -> &[(String, Var)] {
        &self.parameters
    }

    fn forward(&self, input: &BatchInput, mode: &Mode) -> std::result::Result<Forward, EncoderError> {
        let mut pass = Pass::new(mode, self.activations);
        let x = grid(input, &self.shape, &pass, &self.parameters)?;
        let x = convolution(&x, &pass.parameter(&self.patch_weight), self.plan.patch, 0)?;
        let (samples, down, across, own) = x.tensor().dims4()?;
        let x = x.reshape((samples, down * across, own))?;
        let rest = [&self.patch_bias, &self.class_token, &self.position_table].map(|variable| pass.parameter(variable));
        let mut x = with_class_token(&x, &rest[0], &rest[1], &rest[2])?;
        x = pass.dropout(&x, self.plan.dropout)?;
        let tokens = 1 + down * across;
        let starts: Arc<[usize]> = (0..=samples).map(|sample| sample * tokens).collect();
        for block in &self.blocks {
            x = block.forward(&mut pass, &x, self.plan.size.heads as usize, self.plan.dropout, &starts)?;
        }
        x = self.norm.forward(&mut pass, &x)?;
        let pooled = starts.windows(2).map(|sample| match self.plan.pooling {
            Pooling::Cls => sample[0]..sample[0] + 1,
            Pooling::Mean => sample[0] + 1..sample[1],
        });
        x = frame_mean(segment_mean(&x, pooled.collect())?, &self.shape)?;
        let features = self.adapter.forward(&mut pass, &x)?;
        Forward::new(&features, pass)
    }
}
