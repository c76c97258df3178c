//! Clients of a server, each in a separate process.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

pub(super) const ROOT: &str = "s3://runs/some folder+more";

/// Runs one of the ignored tests as a client of the server at `endpoint`.
pub(super) fn command(test: &str, endpoint: &str, access_key: &str) -> Command {
    let program = std::env::current_exe().expect("a test knows its program");
    let mut command = Command::new(program);
    command
        .args(["--exact", "--ignored", "--nocapture", test])
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", access_key)
        .env("AWS_SECRET_ACCESS_KEY", "any")
        .env("AWS_REGION", "eu-north-1")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null());
    command
}

/// Runs a client to its end.
pub(super) async fn client(mut command: Command) -> Output {
    let run = tokio::task::spawn_blocking(move || command.output());
    let run = tokio::time::timeout(Duration::from_secs(300), run).await;
    let run = run.expect("requests are given up in a bounded time").expect("waiting does not panic");
    run.expect("the program runs")
}

pub(super) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits for the line of a client that has this content.
pub(super) fn said(output: &Output) -> String {
    let text = text(output);
    let line = text.lines().find_map(|line| line.split_once("said: "));
    line.unwrap_or_else(|| panic!("nothing was said: {text}")).1.to_owned()
}
