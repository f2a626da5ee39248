//! See `probes::jwt`.
#![no_main]
#![allow(dead_code)] // each target uses one probe of several

#[path = "../../tests/probes.rs"]
mod probes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probes::jwt(bytes));
