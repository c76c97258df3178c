//! The exit codes and last messages of the program.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// A silent connection that the program has accepted: only the HTTP/2 prefaces are exchanged.
fn taken(address: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).expect("it listens");
    connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("it reads");
    let mut settings = [0; 9];
    connection.read_exact(&mut settings).expect("it answers");
    assert_eq!(settings[3], 4, "the first frame holds its settings");
    connection
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_antiphon-coordinator"));
    program
        .args(["--listen", "127.0.0.1:0", "--state", "memory://signals"])
        .env("RUST_LOG", "info")
        .env("NO_COLOR", "1");
    let mut coordinator = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut log = BufReader::new(coordinator.stderr.take().expect("its log")).lines().map(|line| line.expect("a line"));
    let listens = log.find(|line| line.contains("coordinator listens")).expect("it listens");
    let (_, address) = listens.split_once("address=").expect("an address");
    // The program would wait for this connection to end.
    let _connection = taken(address.trim());
    let pid = coordinator.id().to_string();
    for signal in ["-INT", "-TERM"] {
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }
    assert!(log.any(|line| line.contains("asked to stop a second time")), "it says so");
    assert_eq!(coordinator.wait().expect("it is a child").code(), Some(130));
}

/// Waits for a program to end by itself, and returns its exit code and last message.
fn end(arguments: &[&str]) -> (Option<i32>, String) {
    let program =
        Command::new(env!("CARGO_BIN_EXE_antiphon-coordinator")).args(arguments).env("RUST_LOG", "off").output();
    let output = program.expect("it starts");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn a_failed_start_has_an_exit_code_and_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let (code, said) = end(&["--listen", &address, "--state", "memory://ends"]);
    let in_use = format!("error: cannot listen on {address}: Address already in use");
    assert!(code == Some(2) && said.starts_with(&in_use) && said.lines().count() == 1, "{said}");
    let (code, said) = end(&["--listen", "0.0.0.0:0", "--state", "memory://ends"]);
    assert!(code == Some(2) && said.ends_with("or pass --insecure-allow-remote\n"), "{said}");
    let (code, said) = end(&["--listen", "127.0.0.1:0", "--state", "ftp://nowhere/runs"]);
    assert!(code == Some(2) && said.starts_with("error: ") && said.lines().count() == 1, "{said}");
}
