//! Program `manuals`: the man pages and the shells' completions of the programs that are installed, from their own command
//! lines, so that neither can say anything else than `--help`. `manuals DIR` writes `man/`, `bash/`, `zsh/` and `fish/`
//! there; `systemd/build-debs` puts them into the packages.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("manuals DIR");
        return ExitCode::from(64);
    };
    let programs = [repeater::command(), archive::command()];
    for program in programs {
        if let Err(e) = write(program, Path::new(&folder)) {
            eprintln!("manuals: {}: {e}", folder.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn write(mut program: Command, folder: &Path) -> io::Result<()> {
    let name = program.get_name().to_owned();
    for (shell, of) in [
        (Shell::Bash, "bash"),
        (Shell::Zsh, "zsh"),
        (Shell::Fish, "fish"),
    ] {
        std::fs::create_dir_all(folder.join(of))?;
        let written = clap_complete::generate_to(shell, &mut program, &name, folder.join(of))?;
        // Debian's bash finds completions by the program's name alone.
        if of == "bash" {
            std::fs::rename(written, folder.join(of).join(&name))?;
        }
    }
    std::fs::create_dir_all(folder.join("man"))?;
    // `help` says what the other pages say.
    let program = program.disable_help_subcommand(true);
    clap_mangen::generate_to(program, folder.join("man"))
}
