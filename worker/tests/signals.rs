//! The program, when it is asked to end twice.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};

#[test]
fn whoever_asks_twice_is_not_kept_waiting() {
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
    assert!(lines.any(|line| line.contains("asked to end a second time")), "it says so");
    assert_eq!(worker.wait().expect("it is a child").code(), Some(130));
}
