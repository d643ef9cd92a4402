//! The control socket: how a person settles an alarm that no event ends, and has everything read again. `control.sock`
//! in the spool's folder, mode 0600; one line in, one line out, one peer at a time, each within [`limits::CONTROL`].
//!
//! `clear CODE SUBJECT` takes only the alarms that a person settles. Who did it, by the user's number that the kernel
//! vouches for, is in the logbook before it is answered. `verify FROM` reads a little again, as the scrub does, and says
//! where to go on. `probe` commits an entry of the logbook, in the room that is kept for what must always fit, and is answered
//! once that is durable. None moves custody but for copies found damaged, so the loopback page stays without any verb.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use spool::{Contact, Settled, VerifyFrom};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use crate::alarms::Alarms;
use crate::commit::Storage;
use crate::{limits, verify};

/// Where the socket of a spool is.
#[must_use]
pub fn path(spool_dir: &Path) -> PathBuf {
    spool_dir.join("control.sock")
}

/// What the socket acts on.
#[derive(Clone, Debug)]
pub struct Control {
    /// The storage thread.
    pub storage: Storage,
    /// Alarms, as they are shown.
    pub alarms: Alarms,
}

/// Makes the socket anew: the spool is ours alone by now, so that one which lies there is a dead daemon's.
///
/// # Errors
/// What the system says.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

impl Control {
    /// Serves one peer after the other. Never returns.
    pub async fn serve(self, listener: UnixListener) {
        loop {
            let served = match listener.accept().await {
                Ok((stream, _)) => tokio::time::timeout(limits::CONTROL, self.answer(stream)).await,
                Err(e) => {
                    warn!("control socket: {e}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            match served {
                Ok(Ok(())) => {}
                Ok(Err(e)) => warn!("control socket: {e}"),
                Err(_) => warn!("control socket: a peer took too long"),
            }
        }
    }

    async fn answer(&self, mut stream: UnixStream) -> std::io::Result<()> {
        let who = stream.peer_cred()?.uid();
        // The mode says so too; between bind and chmod it did not yet.
        if who != 0 && who != nix::unistd::geteuid().as_raw() {
            return stream.write_all(b"error: not your daemon\n").await;
        }
        let mut line = String::new();
        let most = limits::CONTROL_LINE_BYTES;
        BufReader::new((&mut stream).take(most))
            .read_line(&mut line)
            .await?;
        let said = match self.obey(line.trim_end_matches('\n'), who).await {
            Ok(said) if said.is_empty() => "ok\n".to_owned(),
            Ok(said) => format!("ok {said}\n"),
            Err(why) => format!("error: {why}\n"),
        };
        stream.write_all(said.as_bytes()).await
    }

    async fn obey(&self, line: &str, uid: u32) -> Result<String, String> {
        match (line, line.strip_prefix("verify ")) {
            ("probe", _) => self.probe(uid).await.map(|()| String::new()),
            (_, Some(from)) => self.verify(from.parse()?).await,
            (_, None) => self.clear(line, uid).await.map(|()| String::new()),
        }
    }

    async fn probe(&self, uid: u32) -> Result<(), String> {
        let command = Contact::Command {
            who: format!("uid {uid}"),
            what: "probe".into(),
        };
        let told = self
            .storage
            .tell(move |spool, now| spool.contact(command, now));
        told.await.map_err(|e| e.to_string())
    }

    async fn verify(&self, from: VerifyFrom) -> Result<String, String> {
        let alarms = self.alarms.clone();
        let step = self.storage.ask(move |spool, now| {
            let step = verify::daemon_step(spool, from, now)?;
            alarms.take_spool(spool.alarms());
            Ok(step)
        });
        let step = step.await.map_err(|e| e.to_string())?;
        serde_json::to_string(&step).map_err(|e| e.to_string())
    }

    async fn clear(&self, line: &str, uid: u32) -> Result<(), String> {
        let parsed = line
            .strip_prefix("clear ")
            .and_then(|rest| rest.split_once(' '));
        let Some((code, subject)) = parsed else {
            return Err("say `clear CODE SUBJECT`, `verify FROM` or `probe`".into());
        };
        let (code, subject, who) = (code.to_owned(), subject.to_owned(), format!("uid {uid}"));
        info!(code, subject, who, "asked to clear an alarm");
        let alarms = self.alarms.clone();
        let settled = self.storage.tell(move |spool, now| {
            let settled = spool.settle_alarm(&code, &subject, &who, now)?;
            alarms.take_spool(spool.alarms());
            Ok(settled)
        });
        match settled.await.map_err(|e| e.to_string())? {
            Settled::Cleared => Ok(()),
            Settled::NotRaised => Err("no such alarm stands".into()),
            Settled::EndsByItself => Err(format!(
                "that alarm goes when its cause is gone; a person settles {}",
                spool::alarm::SETTLED_BY_A_PERSON.join(", ")
            )),
        }
    }
}

/// Asks the running daemon to clear an alarm.
///
/// # Errors
/// Where no daemon answers, or it refuses.
pub fn clear(spool_dir: &Path, code: &str, subject: &str) -> anyhow::Result<()> {
    let line = format!("clear {code} {subject}");
    let fits = u64::try_from(line.len()).is_ok_and(|n| n < limits::CONTROL_LINE_BYTES);
    anyhow::ensure!(
        fits && !line.contains(char::is_control),
        "give code and subject as `repeaterd status` shows them"
    );
    let said = ask(spool_dir, &line)?;
    anyhow::ensure!(said.is_empty(), "the daemon's answer is not understood");
    Ok(())
}

/// Says one line to the running daemon; its answer behind `ok`.
///
/// # Errors
/// Where no daemon answers, or it refuses.
pub fn ask(spool_dir: &Path, line: &str) -> anyhow::Result<String> {
    let path = path(spool_dir);
    let mut stream = std::os::unix::net::UnixStream::connect(&path)
        .with_context(|| format!("no daemon answers on {}; is it running?", path.display()))?;
    stream.set_read_timeout(Some(limits::CONTROL))?;
    stream.set_write_timeout(Some(limits::CONTROL))?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    stream
        .take(limits::CONTROL_ANSWER_BYTES)
        .read_to_string(&mut answer)?;
    let said = answer.strip_suffix('\n').and_then(|a| a.strip_prefix("ok"));
    let said = said.with_context(|| format!("the daemon refuses: {}", answer.trim()))?;
    Ok(said.trim_start().to_owned())
}
