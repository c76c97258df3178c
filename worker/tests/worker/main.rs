//! Tests of the worker: how the program ends, and training that starts from pretrained weights.

mod ends;
mod weights;
