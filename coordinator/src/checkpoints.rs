//! ENGINEER F: storage and checkpoints now live in the crate `antiphon-store` (folder `store/`), see the note in
//! `store/src/lib.rs`. Delete this file and the next one when you have read this.
