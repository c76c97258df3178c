//! A coordinator on a real socket, driven through the generated client by valid workers, invalid workers and clients.

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
