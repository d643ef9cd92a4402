//! The program `demo`: see the library's documentation.

fn main() -> std::process::ExitCode {
    demo::main(std::env::args_os().collect())
}
