//! The program, when it is asked to end twice.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};

#[test]
fn whoever_asks_twice_is_not_kept_waiting() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_antiphon-coordinator"));
    program
        .args(["--listen", "127.0.0.1:0", "--state", "memory://signals"])
        .env("RUST_LOG", "info")
        .env("NO_COLOR", "1");
    let mut coordinator = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut log = BufReader::new(coordinator.stderr.take().expect("its log")).lines().map(|line| line.expect("a line"));
    let listens = log.find(|line| line.contains("coordinator listens")).expect("it listens");
    let (_, address) = listens.split_once("address=").expect("an address");
    // It would wait a while for this connection to end.
    let _connection = TcpStream::connect(address.trim()).expect("it accepts");
    let pid = coordinator.id().to_string();
    for signal in ["-INT", "-TERM"] {
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }
    assert!(log.any(|line| line.contains("asked to end a second time")), "it says so");
    assert_eq!(coordinator.wait().expect("it is a child").code(), Some(130));
}
