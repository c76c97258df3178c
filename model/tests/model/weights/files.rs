//! Reading valid and damaged files.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use antiphon_model::weights::file::{Tensors, read};
use candle_core::{DType, Device, Tensor};

use super::support::{check, flat, folder, tensor};

fn made(name: &str) -> PathBuf {
    folder().join("files").join(name)
}

fn refusal(path: &Path) -> String {
    read(path, "FILE").expect_err("it is broken").to_string()
}

fn names(tensors: &Tensors) -> Vec<&str> {
    tensors.floats.keys().map(String::as_str).collect()
}

#[test]
fn every_precision_and_layout_of_pytorch_is_read() {
    let read = read(&made("plain.pth"), "plain").expect("a state dict");
    let eighths = [0.0, 0.125, 0.25, 0.375, 0.5, 0.625];
    for (name, shape, expected) in [
        ("whole", vec![2, 3, 4], (0..24).map(|i| i as f32 / 4.0).collect::<Vec<_>>()),
        ("half", vec![6], eighths.to_vec()),
        ("brain", vec![6], eighths.to_vec()),
        ("double", vec![6], eighths.to_vec()),
        ("transposed", vec![3, 2], vec![0.0, 0.375, 0.125, 0.5, 0.25, 0.625]),
        ("view", vec![2, 2], vec![8.0, 9.0, 14.0, 15.0]),
        ("same", vec![2, 2], vec![8.0, 9.0, 14.0, 15.0]),
        ("scalar", vec![], vec![1.5]),
        ("parameter", vec![2], vec![1.0, 2.0]),
    ] {
        let tensor = &read.floats[name];
        assert_eq!((tensor.dims(), tensor.dtype(), flat(tensor)), (shape.as_slice(), DType::F32, expected), "{name}");
    }
    assert_eq!(read.floats.len(), 9);
    assert_eq!(read.others.get("counted").map(String::as_str), Some("torch.LongStorage"));
}

#[test]
fn a_state_dict_within_a_checkpoint_of_training_is_found() {
    for file in ["nested.pth", "protocol4.pth"] {
        let read = read(&made(file), file).expect("a state dict");
        assert_eq!(names(&read), ["0.bias", "0.weight", "1.bias", "1.running_mean", "1.running_var", "1.weight"]);
        assert_eq!(flat(&read.floats["0.weight"]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(flat(&read.floats["1.running_mean"]), [40.0, 41.0, 42.0]);
    }
}

#[test]
fn every_precision_of_safetensors_is_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("no-extension");
    let types = [DType::F32, DType::F16, DType::BF16, DType::F64, DType::I64];
    let numbers = Tensor::new(&[[0.5_f32, -1.0], [2.0, 0.25]], &Device::Cpu).expect("a tensor");
    let named = types.map(|dtype| (dtype.as_str().to_owned(), numbers.to_dtype(dtype).expect("converted")));
    super::support::write(&path, &named.into());
    let read = read(&path, "file").expect("a safetensors file");
    assert_eq!(names(&read), ["bf16", "f16", "f32", "f64"]);
    for tensor in read.floats.values() {
        assert_eq!(
            (tensor.dims(), tensor.dtype(), flat(tensor)),
            (&[2, 2][..], DType::F32, vec![0.5, -1.0, 2.0, 0.25])
        );
    }
    assert_eq!(read.others.get("i64").map(String::as_str), Some("I64"));
}

#[test]
fn what_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let written = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("the folder is writable");
        path
    };
    let whole = fs::read(made("plain.pth")).expect("it is there");
    let good = folder.path().join("good");
    super::support::write(&good, &[("w".to_owned(), tensor("w", &[4, 4]))].into());
    let header = |json: &str| [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat();
    let safetensors = fs::read(&good).expect("just written");
    let cases = [
        ("nothing", folder.path().join("nothing")),
        ("folder", folder.path().to_path_buf()),
        ("empty", written("empty", b"")),
        ("web page", written("page", b"<!doctype html><html>")),
        ("pointer", written("pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")),
        ("picture", written("picture", b"\x89PNG\r\n\x1a\n")),
        ("pickle", made("command.pkl")),
        ("pickle in an archive", made("command.pth")),
        ("old PyTorch", made("legacy.pth")),
        ("module", made("module.pth")),
        ("elsewhere", made("elsewhere.pth")),
        ("cut PyTorch", written("cut", &whole[..whole.len() / 2])),
        ("cut safetensors", written("cut2", &safetensors[..safetensors.len() - 3])),
        (
            "huge but empty",
            written("huge", &header(r#"{"w":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}}"#)),
        ),
        ("cut header", written("cut3", &safetensors[..20])),
    ];
    let messages: Vec<String> = cases.iter().map(|(what, path)| format!("{what}: {}", refusal(path))).collect();
    check("unreadable", &messages.join("\n"));
    assert!(!Path::new("executed").exists() && !folder.path().join("executed").exists(), "nothing was executed");
}

/// A PyTorch archive with this pickle.
fn archive(path: &Path, pickle: &[u8], numbers: &[u8]) {
    let file = fs::File::create(path).expect("the folder is writable");
    let mut archive = zip::ZipWriter::new(file);
    for (name, bytes) in [("archive/data.pkl", pickle), ("archive/data/0", numbers)] {
        archive.start_file(name, zip::write::SimpleFileOptions::default()).expect("a new file");
        archive.write_all(bytes).expect("the folder is writable");
    }
    archive.finish().expect("the folder is writable");
}

/// `{"w": tensor}` with this storage length, offset, shape and strides, each the body of a pickle.
fn described(length: &[u8], offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let storage = [b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu", length, b"tQ"].concat();
    let call = b"ctorch._utils\n_rebuild_tensor_v2\n(";
    [b"\x80\x02}X\x01\0\0\0w", &call[..], &storage, offset, shape, strides, b"\x89}tRs."].concat()
}

#[test]
fn hostile_descriptions_of_tensors_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("file");
    let numbers = [0_u8; 16];
    let huge: &[u8] = b"\x8a\x07\xff\xff\xff\xff\xff\xff\x7f";
    archive(&path, &described(b"K\x04", b"K\0", b"K\x04\x85", b"K\x01\x85"), &numbers);
    assert_eq!(names(&read(&path, "file").expect("the pattern itself is fine")), ["w"]);
    let empty = described(b"K\x04", b"K\x63", b"K\0\x85", b"K\x01\x85");
    archive(&path, &empty, &numbers);
    assert_eq!(read(&path, "file").expect("it may be empty").floats["w"].dims(), [0]);
    let tuple = |item: &[u8]| [item, item, b"\x86"].concat();
    let cases = [
        ("beyond its storage", described(b"K\x04", b"K\x01", b"K\x04\x85", b"K\x01\x85")),
        ("storage that is not there", described(b"K\x09", b"K\0", b"K\x09\x85", b"K\x01\x85")),
        ("huge shape", described(huge, b"K\0", &tuple(huge), &tuple(b"K\0"))),
        ("huge but empty", described(b"K\x04", b"K\x63", &[b"K\0", huge, huge, b"\x87"].concat(), b"K\0K\0K\0\x87")),
        ("huge storage", described(huge, b"K\0", b"K\x04\x85", b"K\x01\x85")),
        ("repeated numbers", described(b"K\x04", b"K\0", b"J\xff\xff\xff\x7f\x85", b"K\0\x85")),
        ("negative shape", described(b"K\x04", b"K\0", b"J\xff\xff\xff\xff\x85", b"K\x01\x85")),
        (
            "huge number",
            described(b"K\x04", b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"K\x04\x85", b"K\x01\x85"),
        ),
        ("no arguments", b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n)Rs.".to_vec()),
        ("itself", b"\x80\x02]q\0h\0ah\0.".to_vec()),
        ("long text", b"\x80\x02X\xff\xff\xff\xff".to_vec()),
        ("no stop", b"\x80\x02}".to_vec()),
        ("empty stack", b"\x80\x02.".to_vec()),
        ("no mark", b"\x80\x02t.".to_vec()),
        ("unknown instruction", b"\x80\x02i.".to_vec()),
        ("no such value", b"\x80\x02h\x05.".to_vec()),
    ];
    let messages = cases.iter().map(|(what, pickle)| {
        archive(&path, pickle, &numbers);
        format!("{what}: {}", refusal(&path))
    });
    check("hostile", &messages.collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_small_description_of_much_stays_small() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("file");
    // A list of twice the previous list, sixty levels deep: 2^60 elements if it were copied.
    let mut pickle = b"\x80\x02]q\0".to_vec();
    for level in 0..60_u8 {
        pickle.extend([b'0', b']', b'q', level + 1, b'h', level, b'a', b'h', level, b'a']);
    }
    pickle.push(b'.');
    archive(&path, &pickle, &[]);
    assert!(refusal(&path).contains("something other than a state dict"));
    // Ten thousand tensors of the same numbers.
    let mut pickle = b"\x80\x02}(".to_vec();
    let one = described(b"M\x00\x10", b"K\0", b"M\x00\x10\x85", b"K\x01\x85");
    for n in 0..10_000_u32 {
        pickle.extend(b"X\x04\0\0\0");
        pickle.extend(format!("{n:04}").as_bytes());
        pickle.extend(&one[9..one.len() - 2]);
    }
    pickle.extend(b"u.");
    archive(&path, &pickle, &vec![0; 4 << 12]);
    let message = refusal(&path);
    assert!(message.contains("its tensors would take 163840000 bytes"), "{message}");
}

/// Damage at any position gives tensors or an error.
#[test]
fn damaged_files_are_refused_calmly() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("file");
    super::support::write(&path, &[("w".to_owned(), tensor("w", &[2, 2])), ("b".to_owned(), tensor("b", &[2]))].into());
    let files =
        [made("plain.pth"), made("protocol4.pth"), path.clone()].map(|path| fs::read(path).expect("it is there"));
    for whole in files {
        for at in (0..whole.len()).step_by(1 + whole.len() / 800) {
            let mut damaged = whole.clone();
            damaged[at] ^= [0x01, 0x80, 0xff, 0x10][at % 4];
            fs::write(&path, &damaged).expect("the folder is writable");
            drop(read(&path, "damaged"));
            fs::write(&path, &whole[..at]).expect("the folder is writable");
            drop(read(&path, "cut"));
        }
    }
}
