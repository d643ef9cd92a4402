//! The long-lived parties: started in order, looked after, restarted after a kill, stopped in reverse order. One
//! that ends unasked ends the demo with the last lines of its log.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Launcher, Running, Spec};
use crate::trace::Trace;

/// How long a party may take until it is ready; a repeater recovers its spool first.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a party may take to stop when asked.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Running parties, in order of start.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// Starts programs.
    pub(crate) launcher: Launcher,
    members: Vec<Member>,
    trace: Trace,
}

#[derive(Debug)]
struct Member {
    spec: Spec,
    ready: &'static str,
    traced: bool,
    running: Running,
}

impl Fleet {
    /// Nobody yet.
    pub(crate) fn new(launcher: Launcher, trace: Trace) -> Fleet {
        Fleet {
            launcher,
            members: Vec::new(),
            trace,
        }
    }
    /// Starts a party and waits until it says `ready`; what it says after that.
    pub(crate) fn start(
        &mut self,
        spec: Spec,
        ready: &'static str,
        traced: bool,
    ) -> Result<String> {
        let mut running = self.launch(&spec, traced)?;
        let said = running.ready(ready, READY_WITHIN)?;
        self.members.push(Member {
            spec,
            ready,
            traced,
            running,
        });
        Ok(said)
    }
    /// From now on, a party of that name is started by `spec`.
    pub(crate) fn respecify(&mut self, spec: Spec) {
        if let Some(member) = self.members.iter_mut().find(|m| m.spec.name == spec.name) {
            let log_filter = member.spec.log_filter;
            member.spec = Spec { log_filter, ..spec };
        }
    }
    /// An error if a party ended unasked.
    pub(crate) fn check(&mut self) -> Result<()> {
        for member in &mut self.members {
            if let Some(status) = member.running.ended() {
                bail!(
                    "{} ended with {status} although nobody stopped it{}",
                    member.spec.name,
                    member.running.tail()
                );
            }
        }
        Ok(())
    }
    /// Waits until a killed party is gone and its log read.
    pub(crate) fn await_end(&mut self, name: &str) {
        if let Some(member) = self.members.iter_mut().find(|m| m.spec.name == name) {
            member.running.wait();
        }
    }
    /// Starts a killed party again after `down`.
    pub(crate) fn restart_killed(&mut self, name: &str, down: Duration) -> Result<()> {
        let at = self.position(name)?;
        self.members[at].running.wait();
        std::thread::sleep(down);
        let (spec, traced) = (self.members[at].spec.clone(), self.members[at].traced);
        let mut running = self.launch(&spec, traced)?;
        running
            .ready(self.members[at].ready, READY_WITHIN)
            .with_context(|| format!("{name} after it was killed"))?;
        self.members[at].running = running;
        Ok(())
    }
    /// Starts a killed party, kills it again `after` a while, ready or not, and starts it to stay.
    pub(crate) fn restart_killed_twice(&mut self, name: &str, after: Duration) -> Result<()> {
        self.await_end(name);
        let at = self.position(name)?;
        let (spec, traced) = (self.members[at].spec.clone(), self.members[at].traced);
        self.members[at].running = self.launch(&spec, traced)?;
        std::thread::sleep(after);
        self.members[at].running.kill();
        self.restart_killed(name, Duration::ZERO)
    }
    /// Asks a party to stop and starts it again, by what it was respecified to.
    pub(crate) fn restart(&mut self, name: &str) -> Result<()> {
        let at = self.position(name)?;
        self.members[at].stop()?;
        self.restart_killed(name, Duration::ZERO)
    }
    /// Stops everyone, the last started first.
    pub(crate) fn stop(&mut self) -> Result<()> {
        while let Some(mut member) = self.members.pop() {
            member.stop()?;
        }
        Ok(())
    }

    fn position(&self, name: &str) -> Result<usize> {
        let at = self.members.iter().position(|m| m.spec.name == name);
        at.with_context(|| format!("{name} is not one of the parties"))
    }

    fn launch(&self, spec: &Spec, traced: bool) -> Result<Running> {
        self.launcher
            .start(spec, traced.then(|| self.trace.tap(&spec.name)))
    }
}

impl Member {
    fn stop(&mut self) -> Result<()> {
        match self.running.stop(STOP_WITHIN) {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!(
                "{} was asked to stop and ended with {status}{}",
                self.spec.name,
                self.running.tail()
            ),
            None => bail!(
                "{} did not stop in {STOP_WITHIN:?}{}",
                self.spec.name,
                self.running.tail()
            ),
        }
    }
}
