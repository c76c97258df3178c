//! The worker as its users see it: how the program ends, and training that starts from pretrained weights.

mod ends;
mod weights;
