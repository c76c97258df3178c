//! Pretrained weights: files of other libraries, their names, and tensors that do not fit.
//!
//! `make_files.py` beside it writes `names.json` and `files/`; `UPDATE=1 cargo test -p antiphon-model --test model`
//! rewrites the messages in `golden/`.

mod families;
mod fetching;
mod files;
mod loading;
mod support;
