//! The `avtomatika` binary: hands the process's arguments to the library and the answer back to the shell.

fn main() -> std::process::ExitCode {
    avtomatika_cli::run(std::env::args_os()).into()
}
