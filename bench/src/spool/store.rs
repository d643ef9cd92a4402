//! The store's own processes: one that takes everything, has it receipted and released, and one that opens
//! what the first has left. Calls, order and piece size are the repeater's.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::time::Instant;

use ::spool::{Finished, Options, Spool};
use anyhow::{Result, ensure};
use link::clock::Clock;
use link::random::Random;
use protocol::custody::Stage;
use protocol::identity::Trust;
use protocol::ids::{Digest, RecordingId, SiteId, StoreEpoch, Time};
use protocol::keylist::KeyList;
use protocol::limits::RECEIPT_SEGMENTS;
use protocol::receipt::{self, Receipt, Verdict};

use super::script::{Papers, Script};
use super::{Churned, Job, Started, Taken};
use crate::figures::quantile;
use crate::parts::bytes_f64;
use crate::process::{Usage, own_cpu_s};
use crate::relay::disk_bytes;

const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;
/// What the repeater hands to the storage thread at once.
const PIECE: usize = 128 << 10;
/// Segments of one camera in flight.
const IN_FLIGHT: usize = 3;
const BATCH: usize = 32;
/// Rounds of the churn for each time that all is replaced.
const PARTS: u32 = 8;
/// The site's store.
const EPOCH: StoreEpoch = StoreEpoch([7; 16]);

/// What one receipt is to name.
#[derive(Default)]
struct Named {
    segments: Vec<Digest>,
    manifests: BTreeSet<Digest>,
}

/// One store being driven.
pub(super) struct Bench {
    clock: Clock,
    papers: Papers,
    spool: Spool,
    commits_ms: Vec<f64>,
    /// Commits and reclaims.
    calls_ms: Vec<f64>,
    picks_us: Vec<f64>,
    put_picks_us: Vec<f64>,
}

/// The hidden part: takes, receipts and releases everything.
pub(crate) fn run(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job)?;
    let (clock, papers) = (Clock::system(), Papers::load(&job.agency)?);
    let script = Script::make(&job, &papers, 0, clock.now())?;
    // What the script itself takes is not the store's.
    let before_mib = Usage::of(std::process::id())?.peak_mib;
    let mut bench = Bench::open(&job, clock, papers)?;
    bench.announce(&script)?;
    let (began, cpu) = (bench.clock.instant(), own_cpu_s());
    bench.take(&script, u64::MAX)?;
    let (wall_s, cpu_s) = (bench.seconds_since(began), own_cpu_s() - cpu);
    let bytes = u64::from(job.segments) * u64::from(job.segment_bytes);
    let held = bench.segments(Stage::Held);
    ensure!(
        held >= u64::from(job.segments),
        "{held} of {} segments are Held",
        job.segments
    );
    let counts = bench.spool.counts();
    ensure!(counts.unaccounted.segments == 0, "footage is unaccounted");
    let disk = disk_bytes(&job.dir)?;
    let ledger = disk_bytes(&job.dir.join("ledger"))?;
    let commits = bench.commits_ms.clone();
    let began = bench.clock.instant();
    bench.receive_receipts()?;
    let receipts_s = bench.seconds_since(began);
    let began = bench.clock.instant();
    bench.release(&script)?;
    let release_s = bench.seconds_since(began);
    let churned = bench.churn(&job)?;
    let taken = Taken {
        mib_s: bytes_f64(bytes) / MIB / wall_s,
        segments_s: f64::from(job.segments) / wall_s,
        cpu_s_per_gib: cpu_s / (bytes_f64(bytes) / GIB),
        commit_p50_ms: quantile(commits.clone(), 0.5),
        commit_p99_ms: quantile(commits.clone(), 0.99),
        commit_max_ms: quantile(commits, 1.0),
        pick_p50_us: quantile(bench.picks_us.clone(), 0.5),
        pick_p99_us: quantile(bench.picks_us, 0.99),
        put_pick_p50_us: quantile(bench.put_picks_us, 0.5),
        receipts_s,
        release_s,
        disk_over_held: bytes_f64(disk) / bytes_f64(bytes),
        ledger_bytes_per_segment: bytes_f64(ledger) / f64::from(job.segments),
        churned,
        peak_mib: Usage::of(std::process::id())?.peak_mib - before_mib,
    };
    println!("{}", serde_json::to_string(&taken)?);
    Ok(())
}

/// The hidden part: opens what [`run`] has left.
pub(crate) fn start(job: &str) -> Result<()> {
    timed_start(job, Spool::open)
}

/// The hidden part: derives the ledger of it anew, from files, manifests and logbook.
pub(crate) fn rebuild(job: &str) -> Result<()> {
    timed_start(job, Spool::recover)
}

fn timed_start(job: &str, how: Opener) -> Result<()> {
    let job: Job = serde_json::from_str(job)?;
    let (clock, papers) = (Clock::system(), Papers::load(&job.agency)?);
    let began = clock.instant();
    let (spool, report) = open(&job, &papers, &clock, how)?;
    let ready_s = clock.instant().duration_since(began).as_secs_f64();
    eprintln!("{report}");
    ensure!(
        spool.counts().unaccounted.segments == 0,
        "footage is unaccounted"
    );
    let started = Started {
        ready_s,
        peak_mib: Usage::of(std::process::id())?.peak_mib,
        held: segments(&spool, Stage::Held),
    };
    println!("{}", serde_json::to_string(&started)?);
    Ok(())
}

type Opened = (Spool, ::spool::StartReport);
type Opener = fn(Options, Trust, KeyList, Time) -> Result<Opened, ::spool::SpoolError>;

fn open(job: &Job, papers: &Papers, clock: &Clock, how: Opener) -> Result<Opened> {
    let each = u64::from(job.segment_bytes).next_multiple_of(4096) + 1024;
    let bytes = u64::from(job.segments) * each + (64 << 20);
    let suspect = job.dir.with_extension("run");
    fs::create_dir_all(&suspect)?;
    let options = Options::new(
        job.dir.clone(),
        // Churned, it holds what is taken once, and little more.
        if job.churn > 0 {
            u64::from(job.segments) * each * 5 / 4
        } else {
            4 * bytes
        },
        suspect,
        Random::system().bytes(),
    );
    Ok(how(
        options,
        papers.trust.clone(),
        papers.keys.clone(),
        clock.now(),
    )?)
}

/// Segments of a stage, headers among them.
fn segments(spool: &Spool, stage: Stage) -> u64 {
    let totals = spool.counts().stages[stage as usize];
    totals.iter().map(|t| t.segments).sum()
}

impl Bench {
    fn open(job: &Job, clock: Clock, papers: Papers) -> Result<Bench> {
        let (spool, _) = open(job, &papers, &clock, Spool::open)?;
        Ok(Bench {
            clock,
            papers,
            spool,
            commits_ms: Vec::new(),
            calls_ms: Vec::new(),
            picks_us: Vec::new(),
            put_picks_us: Vec::new(),
        })
    }

    /// A store that has taken everything; the last of each camera is written, and no commit ended it.
    pub(super) fn take_all(job: &Job) -> Result<Bench> {
        let (clock, papers) = (Clock::system(), Papers::load(&job.agency)?);
        let script = Script::make(job, &papers, 0, clock.now())?;
        let mut bench = Bench::open(job, clock, papers)?;
        bench.announce(&script)?;
        let pulls = u64::from(job.segments + job.cameras);
        bench.take(&script, pulls - u64::from(job.cameras) * IN_FLIGHT as u64)?;
        let mut on_their_way = 0;
        for offer in &script.offers {
            let (now, none) = (bench.clock.now(), HashSet::new());
            let tasks = bench
                .spool
                .next_pulls(&offer.camera, IN_FLIGHT, &none, now)?;
            on_their_way += tasks.len();
            for task in tasks {
                bench.pull(&script, &task.digest)?;
            }
        }
        ensure!(on_their_way > 0, "nothing is on its way");
        Ok(bench)
    }

    pub(super) fn segments(&self, stage: Stage) -> u64 {
        segments(&self.spool, stage)
    }

    fn announce(&mut self, script: &Script) -> Result<()> {
        for offer in &script.offers {
            self.spool.inventory(&offer.inventory, self.clock.now())?;
            for manifest in &offer.manifests {
                self.spool.admit(manifest, self.clock.now())?;
                if self.spool.commit_is_due() {
                    self.commit()?;
                }
            }
        }
        self.commit()?;
        self.commits_ms.clear();
        Ok(())
    }

    /// Takes everything, cameras in turn, as many at once as the repeater has in flight.
    fn take(&mut self, script: &Script, most: u64) -> Result<()> {
        let mut taken = 0;
        let cameras: Vec<_> = script.offers.iter().map(|o| o.camera.clone()).collect();
        let none = HashSet::new();
        loop {
            let mut any = false;
            for camera in &cameras {
                // The next one, and then as many as the repeater has in flight, which is not timed.
                let began = self.clock.instant();
                self.spool.next_pulls(camera, 1, &none, self.clock.now())?;
                self.picks_us.push(self.seconds_since(began) * 1e6);
                let tasks = self
                    .spool
                    .next_pulls(camera, IN_FLIGHT, &none, self.clock.now())?;
                for task in tasks {
                    if taken == most {
                        return self.commit();
                    }
                    (any, taken) = (true, taken + 1);
                    self.pull(script, &task.digest)?;
                    if self.spool.commit_is_due() {
                        self.commit()?;
                    }
                }
            }
            if !any {
                return self.commit();
            }
        }
    }

    fn pull(&mut self, script: &Script, digest: &Digest) -> Result<()> {
        let mut incoming = self.begin(digest)?;
        for piece in script.pieces(digest, PIECE)? {
            incoming.write_bytes(piece)?;
        }
        let finished = self.spool.finish(incoming, self.clock.now())?;
        ensure!(finished == Finished::Verified, "{digest}: {finished:?}");
        Ok(())
    }

    /// Has everything named by receipts, batch by batch, each batch durable.
    fn receive_receipts(&mut self) -> Result<()> {
        let site = self.papers.site.clone();
        let (answering, none) = (BTreeSet::from([site.clone()]), HashSet::new());
        let mut headers = HashMap::new();
        loop {
            let offers =
                self.spool
                    .next_offers(&answering, &site, BATCH, &none, self.clock.now())?;
            if offers.is_empty() {
                break;
            }
            for offer in offers {
                headers.insert(offer.recording.clone(), offer.digests[0]);
                self.spool.offer_answered(&site, &offer.manifest)?;
            }
        }
        loop {
            let began = self.clock.instant();
            let puts = self
                .spool
                .next_puts(&answering, &site, BATCH, &none, self.clock.now())?;
            self.put_picks_us.push(self.seconds_since(began) * 1e6);
            if puts.is_empty() {
                return Ok(());
            }
            let mut named: HashMap<RecordingId, Named> = HashMap::new();
            for put in puts {
                let named = named.entry(put.recording).or_default();
                named.segments.extend(put.seq.map(|_| put.digest));
                named.manifests.insert(put.manifest);
            }
            for (recording, named) in named {
                let header = headers[&recording];
                self.receipt(&site, recording, header, named)?;
            }
            self.commit()?;
        }
    }

    fn receipt(
        &mut self,
        site: &SiteId,
        recording: RecordingId,
        header: Digest,
        named: Named,
    ) -> Result<()> {
        ensure!(
            named.segments.len() <= RECEIPT_SEGMENTS,
            "a batch is beyond one receipt"
        );
        let body = receipt::Body {
            version: receipt::VERSION,
            site: site.clone(),
            epoch: EPOCH,
            recording,
            header,
            segments: named.segments,
            verdict: Verdict::Stored,
            signed: self.clock.now(),
            manifests: named.manifests.into_iter().collect(),
        };
        let receipt = Receipt::sign(body, &self.papers.receipt_key)?;
        self.spool.receipt(&receipt, self.clock.now())?;
        Ok(())
    }

    /// Has every camera say that it has recorded its receipts.
    fn release(&mut self, script: &Script) -> Result<()> {
        for offer in &script.offers {
            let mut told = HashSet::new();
            loop {
                let due = self
                    .spool
                    .receipts_due(&offer.camera, BATCH, &HashSet::new())?;
                if due.is_empty() {
                    break;
                }
                for one in due {
                    ensure!(told.insert(one.digest), "a receipt is due again");
                    let receipt = Receipt::verify(one.bytes, &self.papers.keys)?;
                    let body = receipt.body();
                    let mut digests = body.segments.clone();
                    digests.push(body.header);
                    digests.extend(&body.manifests);
                    self.spool
                        .released(&offer.camera, one.number, &digests, self.clock.now())?;
                }
                self.commit()?;
            }
        }
        Ok(())
    }

    /// As many again, so many times over, in the room of what was there before: an eighth of them at a time, so that
    /// recordings are to the spool what they are to a large one.
    fn churn(&mut self, job: &Job) -> Result<Churned> {
        let mut churned = Churned::default();
        let folder = job.dir.join("ledger");
        let part = Job {
            segments: job.segments.div_ceil(PARTS),
            ..job.clone()
        };
        self.calls_ms.clear();
        for round in 1..=u64::from(job.churn * PARTS) {
            // Contents are numbered on: the first round was all of them.
            let number = round + u64::from(PARTS);
            let script = Script::make(&part, &self.papers, number, self.clock.now())?;
            self.announce(&script)?;
            self.take(&script, u64::MAX)?;
            self.receive_receipts()?;
            self.release(&script)?;
            for offer in &script.offers {
                self.spool.inventory(&offer.erased, self.clock.now())?;
                self.commit()?;
            }
            let counts = self.spool.counts();
            let live: u64 = counts.stages.iter().flatten().map(|t| t.segments).sum();
            let per = bytes_f64(disk_bytes(&folder)?) / bytes_f64(live);
            eprintln!(
                "round {round}: {live} segments of {} recordings have rows, {per:.0} bytes of ledger for each; {} are forgotten, {:?}",
                counts.recordings,
                counts.forgotten.segments,
                self.spool.space()
            );
            // The last eighth of the rounds, at its worst.
            if round > u64::from(job.churn * (PARTS - 1)) {
                churned.ledger_bytes_per_segment = churned.ledger_bytes_per_segment.max(per);
            }
        }
        churned.longest_ms = self.calls_ms.iter().copied().fold(0.0, f64::max);
        Ok(churned)
    }

    /// Begins a pull; where there is no room, it is made.
    fn begin(&mut self, digest: &Digest) -> Result<::spool::Incoming> {
        loop {
            match self.spool.begin(digest) {
                Err(::spool::SpoolError::NoSpace(_)) => {
                    let began = self.clock.instant();
                    let done = self.spool.reclaim(self.clock.now())?;
                    self.calls_ms.push(self.seconds_since(began) * 1000.0);
                    ensure!(done.segments > 0, "there is no room and none can be made");
                    self.commit()?;
                }
                other => return Ok(other?),
            }
        }
    }

    fn commit(&mut self) -> Result<()> {
        let began = self.clock.instant();
        let committed = self.spool.commit(self.clock.now())?;
        let took = self.seconds_since(began) * 1000.0;
        self.commits_ms.push(took);
        self.calls_ms.push(took);
        ensure!(committed.again.is_empty(), "a sync failed");
        Ok(())
    }

    fn seconds_since(&self, began: Instant) -> f64 {
        self.clock.instant().duration_since(began).as_secs_f64()
    }
}
