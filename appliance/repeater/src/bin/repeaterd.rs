//! `repeaterd`: the program that runs on the access point. All of it is in the library.

fn main() -> std::process::ExitCode {
    repeater::main(std::env::args_os().collect())
}
