//! Becomes the party that its first argument names: `party:repeaterd`, `party:bodycam`, `party:archive`,
//! `party:agency`, or one of the suites' own: `party:spool-driver`, `party:spool-steps`, `party:spool-check`,
//! `party:store-driver`, `party:store-check`; `party:traced party:NAME` becomes that party once it is traced, and
//! `party:under PROGRAM` any program. The scenarios start every party as
//! this program, which dies with the thread that started it.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|a| a == "party:traced") {
        args.remove(1);
        if !tests::syscalls::trace::until_traced() {
            eprintln!("party: nobody traces it");
            return ExitCode::from(70);
        }
    }
    let name = args
        .get(1)
        .and_then(|a| a.to_str())
        .and_then(|a| a.strip_prefix("party:"))
        .map(str::to_owned);
    let Some(name) = name else {
        eprintln!("party: the first argument is party:NAME");
        return ExitCode::from(64);
    };
    if nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).is_err() {
        eprintln!("party: cannot ask to die with its parent");
        return ExitCode::from(70);
    }
    args.drain(..2);
    args.insert(0, OsString::from(&name));
    match name.as_str() {
        "repeaterd" => repeater::main(args),
        "bodycam" => camera::main(args),
        "archive" => archive::main(args),
        "agency" => link::agency::main(args),
        "spool-driver" => tests::power_cut::driver::main(&words(&args)),
        "store-driver" => tests::power_cut::store::main(&words(&args)),
        "store-check" => tests::power_cut::store::check(&words(&args)),
        "spool-steps" => tests::power_cut::steps::main(&words(&args)),
        "spool-check" => tests::power_cut::check::main(&words(&args)),
        "under" => tests::process::under(&args),
        other => {
            eprintln!("party: there is no party {other}");
            ExitCode::from(64)
        }
    }
}

/// The arguments after the name, where they are text.
fn words(args: &[OsString]) -> Vec<String> {
    let text = |a: &OsString| a.to_string_lossy().into_owned();
    args.iter().skip(1).map(text).collect()
}
