//! The program `agency`; see `link::agency`.

fn main() -> std::process::ExitCode {
    link::agency::main(std::env::args_os().collect())
}
