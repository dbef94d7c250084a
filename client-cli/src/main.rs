//! The `avtomatika` binary: hands the process's arguments to the library and the answer back to the shell.

/// Measured against the system's: see docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    avtomatika_cli::run(std::env::args_os()).into()
}
