#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydrant_router::fuzz::proxy_protocol(bytes));
