//! The exit codes and last messages of the program.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};

#[test]
fn a_second_signal_ends_it_at_once() {
    // A coordinator that never answers.
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let mut program = Command::new(env!("CARGO_BIN_EXE_antiphon-worker"));
    program.args(["--modality", "audio", "--coordinator", &url]).env("RUST_LOG", "info").env("NO_COLOR", "1");
    let mut worker = program.stderr(Stdio::piped()).spawn().expect("it starts");
    let log = BufReader::new(worker.stderr.take().expect("its log"));
    let _connection = listener.accept().expect("it dials");
    let pid = worker.id().to_string();
    for signal in ["-INT", "-TERM"] {
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }
    let mut lines = log.lines().map(|line| line.expect("a line"));
    assert!(lines.any(|line| line.contains("asked to stop a second time")), "it says so");
    assert_eq!(worker.wait().expect("it is a child").code(), Some(130));
}

#[test]
fn what_keeps_it_from_working_has_its_exit_code_and_one_line() {
    for (more, code, wanted) in [
        (&["--connect-timeout", "0"][..], 3, "error: no coordinator at http://127.0.0.1:9 after 0 s: "),
        (&["--coordinator", "nowhere://"], 2, "error: coordinator `nowhere://` is not an address: "),
        (&["--device", "cuda:99"], 2, "error: "),
    ] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_antiphon-worker"));
        program.args(["--modality", "audio"]).args(more).env("RUST_LOG", "off");
        let output = program.env("ANTIPHON_COORDINATOR", "http://127.0.0.1:9").output().expect("it starts");
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(said.starts_with(wanted) && said.lines().count() == 1, "{said}");
        assert_eq!(output.status.code(), Some(code), "{said}");
    }
}
