//! The program `bodycam`: all of it is [`camera::main`].

fn main() -> std::process::ExitCode {
    camera::main(std::env::args_os().collect())
}
