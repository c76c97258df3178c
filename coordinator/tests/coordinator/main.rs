//! A coordinator on a real socket, driven over the generated client: by good workers, by bad ones, and by people.

mod abuse;
mod ends;
mod fake_worker;
mod faults;
mod garbage;
mod garbled_requests;
mod jobs;
mod lifecycle;
mod numerics;
mod restart;
mod server;
mod service;
