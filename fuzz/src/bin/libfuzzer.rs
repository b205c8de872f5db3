//! libFuzzer over one target, chosen by the environment variable `TARGET`.
//!
//! One binary for all targets keeps the instrumented build to a single link.

#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("TARGET").expect("TARGET names a fuzz target");
    fuzz::target(&name).unwrap_or_else(|| panic!("no fuzz target is called {name}"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
