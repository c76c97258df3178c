//! The generated code is what the `.proto` files say. `UPDATE=1 cargo test -p antiphon-proto --test proto generated`
//! writes it.

use std::path::Path;

use prost::Message;

const FILES: [&str; 3] = ["antiphon/v1/tensor.proto", "antiphon/v1/training.proto", "antiphon/v1/job.proto"];

#[test]
fn generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(FILES, [root.join("proto")]).expect("the .proto files compile");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let encoded = encode_without_sources(&descriptors);
    tonic_prost_build::configure()
        .bytes(".antiphon.v1.Tensor.data")
        .bytes(".antiphon.v1.TensorChunk.data")
        .out_dir(scratch.path())
        .compile_fds(descriptors)
        .expect("code is generated");
    let code = std::fs::read(scratch.path().join("antiphon.v1.rs")).expect("the code is there");
    let checked_in = root.join("src/generated");
    compare_or_update(&checked_in.join("antiphon.v1.rs"), &code);
    compare_or_update(&checked_in.join("antiphon.v1.bin"), &encoded);
}

/// Reflection does not need comments and positions, which are most of the bytes.
fn encode_without_sources(descriptors: &prost_types::FileDescriptorSet) -> Vec<u8> {
    let mut plain = descriptors.clone();
    for file in &mut plain.file {
        file.source_code_info = None;
    }
    plain.encode_to_vec()
}

fn compare_or_update(path: &Path, wanted: &[u8]) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, wanted).expect("generated code is written");
        return;
    }
    let found = std::fs::read(path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} is out of date: run `UPDATE=1 cargo test -p antiphon-proto --test proto generated`",
        path.display()
    );
}
