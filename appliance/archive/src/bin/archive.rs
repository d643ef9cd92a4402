//! The program `archive`: see the library's documentation.

fn main() -> std::process::ExitCode {
    archive::main(std::env::args_os().collect())
}
