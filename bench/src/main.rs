//! The program `bench`: all of it is [`bench::main`].

fn main() -> std::process::ExitCode {
    bench::main(std::env::args_os().collect())
}
