//! How a program of the house ends: at once on a panic, at once on a second signal. Each test runs this test
//! executable again as the program.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use link::tasks::{Tasks, abort_on_panic, current_thread, stop_signal};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PROGRAM: &str = "LINK_TEST_PROGRAM";

fn start(program: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_program", "--nocapture"])
        .env(PROGRAM, program)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn wait_for(child: &mut Child, line: &str) {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(
        lines.map_while(Result::ok).any(|said| said.contains(line)),
        "never said {line}"
    );
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

fn end(child: &mut Child) -> ExitStatus {
    for _ in 0..500 {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("the program did not end");
}

/// The program itself: does nothing when it runs as a test.
#[test]
fn the_program() {
    match std::env::var(PROGRAM).as_deref() {
        Ok("panics in a task") => current_thread(async {
            abort_on_panic();
            let tasks = Tasks::new();
            let _ = tasks.spawn("broken", async { panic!("on purpose") }).await;
            println!("lived on");
        })
        .unwrap(),
        Ok("waits") => current_thread(async {
            let signal = stop_signal(Duration::from_secs(60)).unwrap();
            println!("ready");
            println!("first {}", signal.await);
            std::future::pending::<()>().await;
        })
        .unwrap(),
        // What a program does while it stops: its runtime is gone, a thread is waited for.
        Ok("hangs while it stops") => {
            let signal = stop_signal(Duration::from_secs(60)).unwrap();
            println!("ready");
            println!("first {}", current_thread(signal).unwrap());
            std::thread::sleep(Duration::from_secs(60));
        }
        Ok("never stops") => {
            let signal = stop_signal(Duration::from_millis(300)).unwrap();
            println!("ready");
            println!("first {}", current_thread(signal).unwrap());
            std::thread::sleep(Duration::from_secs(60));
        }
        _ => {}
    }
}

#[test]
fn a_panic_in_any_task_aborts_the_process() {
    let mut child = start("panics in a task");
    assert_eq!(end(&mut child).signal(), Some(Signal::SIGABRT as i32));
}

#[test]
fn the_first_signal_asks_and_the_second_ends() {
    for (second, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        for program in ["waits", "hangs while it stops"] {
            let mut child = told_to_stop(program);
            assert!(
                child.try_wait().unwrap().is_none(),
                "the first signal only asks"
            );
            signal(&child, second);
            assert_eq!(end(&mut child).code(), Some(code), "{program}");
        }
    }
}

#[test]
fn who_does_not_stop_in_time_is_ended() {
    let mut child = told_to_stop("never stops");
    assert_eq!(end(&mut child).code(), Some(75));
}

fn told_to_stop(program: &str) -> Child {
    let mut child = start(program);
    wait_for(&mut child, "ready");
    signal(&child, Signal::SIGTERM);
    wait_for(&mut child, "first SIGTERM");
    child
}
