//! Pretrained weights: files that other libraries write, their names, what does not fit, and what is trained afterwards.
//!
//! `make_files.py` beside it writes `names.json` and `files/`; `UPDATE=1 cargo test -p antiphon-worker --test weights` writes
//! the messages in `golden/` anew.

mod families;
mod fetching;
mod files;
mod loading;
mod support;
mod training;
