//! What is kept. From the moment the repeater says Held until receipts from as many sites as the policy asks for
//! are here, every byte is on this disk, through power cuts, kills, full disks and failing ones; and what
//! cannot be kept is noticed and pulled again.
//!
//! Synchronous, one owner: [`Spool`] is driven by one storage thread. It decides nothing about custody itself
//! (that is [`protocol::custody`]), asks no clock and makes no randomness.
//!
//! # On disk
//! ```text
//! FORMAT               `bwc-spool 1`; a newer one is left alone
//! lock                 one process has the folder
//! segments/<digest>    one file for each segment and header, its whole length reserved when its pull begins
//! manifests/<digest>   signed manifests, as they came
//! inventories/<camera> the newest inventory of each camera, replaced as a whole
//! key-list             the newest key list
//! refused/<digest>     copies that were not what their names say: 1 % of the capacity, oldest dropped first
//! logbook              append-only, hash-chained: receipts whole, stages reached, contacts, alarms, commands
//! logbook.damaged-<n>  one of which entries are lost; the logbook's first entry names its last known head
//! countersigned        of each archive site the newest head of the logbook that it countersigned, replaced as a whole
//! ledger/              sled: every row derived from the above, with a sum over all of them
//! ledger.next/         a fresh one in the making, or an old one that is being removed
//! ballast              given up when the ledger meets a full disk
//! interim/             a spool like this one, for what comes while the ledger is rebuilt; the next start takes it over
//! interim.taken/       one that is taken over, and is being removed
//! interim.kept-<n>/    one of which something could not be taken over
//! ```
//! The capacity counts segments, headers and manifests; logbook and ledger come on top ([`Space`]).
//!
//! # Invariants
//! 1. A row vouches for bytes only after they and their directory entry were synced.
//! 2. Nothing is told to a peer before the row is durable: only [`Spool::commit`] makes [`Durable`].
//! 3. Every change of stage is in the logbook, synced before the row that says it; so is every receipt.
//! 4. A queue's key is in the ledger if and only if its record derives it; the next thing to do is at its head.
//! 5. Bytes of an archived segment go only after the receipts that allow it are durable.
//! 6. A sync that failed is never tried again nor believed: a segment is set aside and pulled again; for
//!    anything else the boot is marked suspect, the process ends, and the next start reads everything again.
//!
//! # Procedures
//! Behind each step is the case of the suite `power-cut` that cuts the power when the step is done, with any part of what was
//! not yet synced on the disk: `power-cut --step 'commit 4'`, or all of them with `--steps` (`tests/src/power_cut/steps.rs`).
//!
//! **Create** ([`Spool::begin`], [`Incoming`], [`Spool::finish`]):
//! 1. the file is made and its length reserved (`create 1`);
//! 2. chunks are written, hashed by a thread beside it, and the kernel is asked to write them early (`create 2`);
//! 3. the digest is compared (`create 3`).
//!
//! **Commit** ([`Spool::commit`]):
//! 1. the data of segments and small files is synced (`commit 1`);
//! 2. small files get their names, directories are synced (`commit 2`);
//! 3. the books move (`commit 3`);
//! 4. the logbook is written and synced (`commit 4`);
//! 5. the ledger's batch is applied, flushed, and its file synced (`commit 5`);
//! 6. tokens are made (`commit 6`).
//!
//! **Countersignature** ([`Spool::countersigned`]):
//! 1. a site is told of no head but one that step 4 of a commit has synced (`commit 4`);
//! 2. what it answers is written beside the file `countersigned`, and gets its name with the next commit (`commit 2`);
//! 3. the same commit notes it in the logbook (`commit 4`).
//!
//! **Receipt** ([`Spool::receipt`]):
//! 1. it is staged (`receipt 1`);
//! 2. the next commit writes it to the logbook, where room is reserved for one with each live segment (`commit 4`);
//! 3. segments with enough of them become Archived (`receipt 3`).
//!
//! **Release** ([`Spool::receipts_due`], [`Spool::released`]):
//! 1. a camera is due every receipt that an archived segment of it carries (`release 1`);
//! 2. what it says it has is Released at the next commit (`release 2`);
//! 3. what it lists again is Archived again, and due (`release 3`).
//!
//! **Reclaim** ([`Spool::reclaim`]):
//! 1. a commit (`reclaim 1`);
//! 2. the longest archived are unlinked (`reclaim 2`);
//! 3. the directory is synced (`reclaim 3`);
//! 4. the rows go, with their logbook entry (`reclaim 4`).
//!
//! **Forget** (see `forget`):
//! 1. the rows of a recording go that was released and erased, and of which nothing is here, and each of its manifests gets a
//!    row that says that its file is to go (`forget 1`);
//! 2. when that is durable the files are unlinked (`forget 2`);
//! 3. the next commit syncs their directory, and then those rows go (`forget 3`).
//!
//! **Start-up** ([`Spool::open`]; the essay of `start` has the table of what is found and done):
//! 1. the folder is locked, its format checked, its file system synced (`start-up 1`);
//! 2. on a suspect boot the logbook is read again from the disk (`start-up 2`);
//! 3. the stored key list counts (`start-up 3`);
//! 4. the ledger is opened and compared with its sum, or derived anew (`start-up 4`);
//! 5. what files and logbook know beyond it is entered (`start-up 5`);
//! 6. rows and files are compared (`start-up 6`);
//! 7. all that is made durable (`start-up 7`);
//! 8. what came while a ledger was rebuilt is taken over (`take-over 3`).
//!
//! **Meanwhile** ([`Spool::open_or_rebuild`]):
//! 1. what comes while the ledger is rebuilt is Held by a spool of its own, with commits like these (`meanwhile 1`).
//!
//! **Take over** (see `interim`):
//! 1. its manifests are admitted, its copies linked and committed (`take-over 1`);
//! 2. its receipts, inventories and notes are committed (`take-over 2`);
//! 3. its folder gets another name, which is synced, and goes (`take-over 3`).
//!
//! **Recover** ([`Spool::recover`]): see `rebuild`.
//!
//! # Power cuts
//! The suite `power-cut` (`tests/src/power_cut.rs`) records every block write of a life of the spool on ext4 and XFS, cuts
//! the power at each FLUSH and between two, and checks every promise made before. That it would notice is shown by a fault
//! for each step ([`Fault`]), which is left out or comes too late:
//!
//! | step | fault that is noticed |
//! |---|---|
//! | commit 1, after 5 | `RowBeforeBytes` |
//! | commit 2, reclaim 3 | `NoDirectorySync` |
//! | commit 5, of the ledger's file | `NoLedgerSync` |
//! | commit 6, before 3 | `HeldBeforeBarrier` |
//! | reclaim 1 | `ReclaimBeforeReceipt` |
//! | reclaim 4, before 2 | `ReclaimRowFirst` |
//! | start-up 1 | `NoSyncAtStart` |
//! | start-up 4, of what a killed sled leaves | `KeepStaleSnapshot` |
//!
//! Modules are in reading order: the disk (`folder`, `logbook`, `ledger`), the books (`rows`, `names`, `totals`,
//! `books`), then the footage's way (`announce`, `inventory`, `pull`, `commit` with `moves`, `forward`, `copies`,
//! `release`, `reclaim`, `forget`), then `start` with `succession`, `load`, `mend`, `rebuild` and `interim`; `contact` notes
//! who came, `countersigned` keeps what archives have seen of the logbook; `scrub`, `verify`, `status` and `history` look, and `look` at a spool that nobody uses.

pub mod alarm;
mod announce;
mod books;
mod commit;
mod contact;
mod copies;
mod countersigned;
pub mod early_writeback;
mod error;
mod faults;
mod folder;
mod forget;
mod forward;
mod hashing;
mod history;
mod interim;
mod inventory;
mod ledger;
pub mod limits;
mod load;
mod logbook;
mod look;
mod mend;
mod moves;
mod names;
mod pull;
mod rebuild;
mod reclaim;
mod release;
mod rows;
mod scrub;
mod spool;
mod start;
mod status;
mod succession;
mod totals;
mod verify;

pub use alarm::{Alarm, Settled};
pub use announce::{Admission, AdmitRefusal};
pub use commit::{Committed, Durable, Pending};
pub use contact::{ClockOffset, Contact, Meeting};
pub use countersigned::Countersigning;
pub use error::{Reaction, SpoolError};
pub use faults::{Fault, Faults};
pub use forward::{OfferTask, PutTask, ReceiptOutcome};
pub use interim::{Opened, Rebuild};
pub use inventory::{InventoryOutcome, InventoryPages};
pub use logbook::Entry;
pub use look::{Look, try_ledger};
pub use protocol::logbook::LogbookHead;
pub use pull::{Finished, Incoming, PullTask};
pub use reclaim::{Reclaimed, Space};
pub use release::{DueReceipt, KeyListChange};
pub use scrub::Scrubbed;
pub use spool::{Options, Spool};
pub use start::StartReport;
pub use status::{CameraStatus, RecordingStatus};
pub use totals::{Counts, Tally};
pub use verify::{Good, Problem, VerifyFrom, VerifyStep};
